"""From an anomaly map to lesions and numbers: what must hold between the numbers."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.bids.tables import TABLE_COLUMNS, write_lesion_table
from bids_wmh_uad.core.lesion.segmentation import MASK_WARNINGS, Segmentation, segment
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import HIGH_LOAD, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (14, 12, 6)
AFFINE = np.array([[-0.9, 0, 0, 40], [0, 1.1, 0, -50], [0, 0, 4, 10], [0, 0, 0, 1.0]])
VOXEL_ML = 0.9 * 1.1 * 4 / 1000


def scene(seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A skewed random map with a mask smaller than the grid, and grey matter."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1] = True
    anomaly = (rng.gamma(1.0, 1.0, SHAPE) * mask).astype(np.float32)
    return anomaly, mask, rng.random(SHAPE) > 0.5


def chosen(threshold: str, smallest: float = 0.0) -> DetectionParameters:
    return DetectionParameters(threshold=threshold, min_lesion_volume=smallest)


def run(seed: int, threshold: str, smallest: float = 0.0) -> Segmentation:
    anomaly, mask, grey = scene(seed)
    return segment(anomaly, mask, grey, AFFINE, parameters=chosen(threshold, smallest))


@settings(max_examples=30)
@given(seed=st.integers(0, 999), low=st.floats(0.1, 6), step=st.floats(0, 3), smallest=st.floats(0, 40))
def test_raising_the_threshold_never_grows_the_volume(
    seed: int, low: float, step: float, smallest: float
) -> None:
    first, second = run(seed, f"value={low}", smallest), run(seed, f"value={low + step}", smallest)
    assert second.measures["wmh_volume_ml"] <= first.measures["wmh_volume_ml"]
    assert not np.any((second.labels > 0) & ~(first.labels > 0))


@settings(max_examples=20)
@given(seed=st.integers(0, 999), value=st.floats(0.1, 6), smallest=st.floats(0, 40))
def test_the_numbers_agree_with_the_image(seed: int, value: float, smallest: float) -> None:
    found = run(seed, f"value={value}", smallest)
    anomaly, mask, _ = scene(seed)
    measures = found.measures
    volume = (found.labels > 0).sum() * VOXEL_ML
    assert measures["wmh_volume_ml"] == pytest.approx(volume, abs=6e-5)
    assert measures["lesion_count"] == found.labels.max() == len(found.lesions)
    assert sum(lesion.volume_mm3 for lesion in found.lesions) == pytest.approx(1000 * volume)
    assert all(lesion.volume_mm3 >= smallest * (1 - 1e-9) for lesion in found.lesions)
    largest = max((lesion.volume_mm3 for lesion in found.lesions), default=0) / 1000
    assert measures["largest_lesion_ml"] == pytest.approx(largest, abs=6e-5)
    assert measures["volume_ml_threshold_plus20"] <= measures["wmh_volume_ml"]
    assert measures["wmh_volume_ml"] <= measures["volume_ml_threshold_minus20"]
    assert anomaly[found.labels > 0].min(initial=np.inf) >= value
    assert not found.labels[~mask].any()


@pytest.mark.parametrize("rule", ["tail", "gm", "quantile=0.9", "value=1.5"])
def test_probability_is_one_half_at_the_threshold(rule: str) -> None:
    anomaly, mask, _ = scene(0)
    found = run(0, rule)
    value = found.measures["threshold"]["value"]
    clear = mask & (np.abs(anomaly - value) > 1e-4 * value)
    assert clear.sum() > 500
    assert np.array_equal(found.probability[clear] > 0.5, anomaly[clear] > value)
    assert found.probability.min() >= 0
    assert found.probability.max() <= 1
    assert not found.probability[~mask].any()


def test_plus_and_minus_20_percent_are_what_those_thresholds_give() -> None:
    measures = run(3, "value=2.0").measures
    for key, factor in (("volume_ml_threshold_minus20", 0.8), ("volume_ml_threshold_plus20", 1.2)):
        assert measures[key] == run(3, f"value={2.0 * factor}").measures["wmh_volume_ml"]


def test_a_scaled_map_has_the_same_lesions() -> None:
    anomaly, mask, grey = scene(1)
    once, scaled = (
        segment(f * anomaly, mask, grey, AFFINE, parameters=chosen("tail=1"))
        for f in (np.float32(1), np.float32(4))
    )
    assert once.labels.any()
    assert np.array_equal(once.labels, scaled.labels)


def test_the_volume_does_not_depend_on_the_order_of_storage() -> None:
    anomaly, mask, grey = scene(2)
    flipped = AFFINE @ np.array([[0, -1, 0, SHAPE[0] - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    turned = (np.ascontiguousarray(array[::-1].swapaxes(0, 1)) for array in (anomaly, mask, grey))
    parameters = chosen("quantile=0.8", 10.0)
    first = segment(anomaly, mask, grey, AFFINE, parameters=parameters)
    second = segment(*turned, flipped, parameters=parameters)
    assert first.measures["lesion_count"] > 0
    assert first.measures == second.measures
    centres = [sorted((x.x, x.y, x.z) for x in found.lesions) for found in (first, second)]
    np.testing.assert_allclose(centres[0], centres[1], atol=1e-9)


def test_a_negative_threshold_has_the_same_order() -> None:
    anomaly, mask, grey = scene(5)
    measures = segment(anomaly - 3, mask, grey, AFFINE, parameters=chosen("value=-1.5")).measures
    volumes = [
        measures[name]
        for name in ("volume_ml_threshold_plus20", "wmh_volume_ml", "volume_ml_threshold_minus20")
    ]
    assert 0 < volumes[0] < volumes[1] < volumes[2]


def test_what_lies_outside_the_brain_does_not_count() -> None:
    anomaly, mask, grey = scene(6)
    parameters = chosen("quantile=0.9")
    found = segment(np.where(mask, anomaly, np.float32(99)), mask, grey & mask, AFFINE, parameters=parameters)
    assert found.measures == segment(anomaly, mask, grey & mask, AFFINE, parameters=parameters).measures
    assert not found.labels[~mask].any()
    assert not found.probability[~mask].any()


def test_nothing_found_is_zero() -> None:
    found = run(0, "value=1e9")
    assert found.lesions == ()
    assert not found.labels.any()
    numbers = ("wmh_volume_ml", "lesion_count", "largest_lesion_ml", "volume_ml_threshold_plus20")
    assert [found.measures[name] for name in numbers] == [0, 0, 0, 0]


def test_a_high_load_is_warned_of() -> None:
    assert run(0, "value=1e9").warnings == ()
    (warning,) = run(0, "value=0.01").warnings
    assert warning.code == HIGH_LOAD.code
    assert warning.code in MASK_WARNINGS
    assert float(warning.text.split(" ")[0]) > DetectionParameters.high_load_percent


def test_an_unknown_rule_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--threshold"):
        run(0, "guess")


def test_the_lesion_table_is_a_bids_lookup_table(tmp_path: Path) -> None:
    found = run(4, "value=2.5", 8.0)
    path = write_lesion_table(tmp_path / "lesions.tsv", found.lesions)
    with open(path, newline="") as handle:  # noqa: PTH123
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert tuple(rows[0]) == TABLE_COLUMNS
    assert tuple(rows[0])[:2] == ("index", "name")
    assert [int(row["index"]) for row in rows] == sorted(set(np.unique(found.labels)) - {0})
    assert len({row["name"] for row in rows}) == len(rows) > 1
    for row, lesion in zip(rows, found.lesions, strict=True):
        assert int(row["n_voxels"]) == (found.labels == lesion.index).sum()
        assert float(row["volume_mm3"]) == pytest.approx(lesion.volume_mm3, abs=1e-4)


def test_a_table_without_lesions_has_its_header(tmp_path: Path) -> None:
    write_lesion_table(tmp_path / "t.tsv", replace(run(0, "value=1e9")).lesions)
    assert (tmp_path / "t.tsv").read_text() == "\t".join(TABLE_COLUMNS) + "\n"
