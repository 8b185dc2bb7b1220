"""From an anomaly map to lesions and numbers: what must hold between the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import AFFINE, SHAPE, VOXEL_ML, Scene, check_numbers, run, scene

from bids_wmh_uad.core.lesion.decision import IN_VENTRICLES, LesionDecision
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.lesion.segmentation import MASK_WARNINGS
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import HIGH_LOAD, UNSTABLE_VOLUME, BadDataError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# --------------------------------------------------------- rules that take the threshold at its word


@settings(max_examples=30)
@given(seed=st.integers(0, 999), low=st.floats(0.1, 6), step=st.floats(0, 3), smallest=st.floats(0, 40))
def test_raising_the_threshold_never_grows_the_volume(
    seed: int, low: float, step: float, smallest: float
) -> None:
    first, second = run(seed, f"value={low}", smallest), run(seed, f"value={low + step}", smallest)
    assert second.measures["wmh_volume_ml"] <= first.measures["wmh_volume_ml"]
    assert not np.any((second.lesions.labels > 0) & ~(first.lesions.labels > 0))


@settings(max_examples=20)
@given(seed=st.integers(0, 999), value=st.floats(0.1, 6), smallest=st.floats(0, 40))
def test_the_numbers_agree_with_the_image(seed: int, value: float, smallest: float) -> None:
    found, made = run(seed, f"value={value}", smallest), scene(seed)
    check_numbers(found, smallest)
    measures, labels = found.measures, found.lesions.labels
    assert measures["volume_ml_threshold_plus20"] <= measures["wmh_volume_ml"]
    assert measures["wmh_volume_ml"] <= measures["volume_ml_threshold_minus20"]
    assert made.anomaly[labels > 0].min(initial=np.inf) >= value
    assert not labels[~made.mask].any()


@pytest.mark.parametrize("rule", ["gm", "quantile=0.9", "value=1.5"])
def test_probability_is_one_half_at_the_threshold(rule: str) -> None:
    made = scene(0)
    found = made.segment(rule)
    value = found.measures["threshold"]["value"]
    clear = made.mask & (np.abs(made.anomaly - value) > 1e-4 * value)
    assert clear.sum() > 500
    assert np.array_equal(found.probability[clear] > 0.5, made.anomaly[clear] > value)
    assert found.probability.min() >= 0
    assert found.probability.max() <= 1
    assert not found.probability[~made.mask].any()


def test_plus_and_minus_20_percent_are_what_those_thresholds_give() -> None:
    measures = run(3, "value=2.0").measures
    for key, factor in (("volume_ml_threshold_minus20", 0.8), ("volume_ml_threshold_plus20", 1.2)):
        assert measures[key] == run(3, f"value={2.0 * factor}").measures["wmh_volume_ml"]


def test_a_negative_threshold_has_the_same_order() -> None:
    made = scene(5)
    measures = replace(made, anomaly=made.anomaly - 3).segment("value=-1.5").measures
    volumes = [
        measures[name]
        for name in ("volume_ml_threshold_plus20", "wmh_volume_ml", "volume_ml_threshold_minus20")
    ]
    assert 0 < volumes[0] < volumes[1] < volumes[2]


@pytest.mark.parametrize("options", [{"threshold": "value=1.5"}, {"threshold": "gm"}, {"threshold": "quantile=0.9"},
                                     {"threshold": "tail=0.5", "score": "latent"}, {"threshold": "tail=0.5", "score": "faithful"}])  # fmt: skip
@pytest.mark.parametrize("accept", [0.0, 1.0])
def test_where_nothing_is_decided_the_decision_changes_nothing(
    options: dict[str, Any], accept: float
) -> None:
    made = scene(7)
    plain = made.segment(**options)
    never = made.segment(
        **options, decision=LesionDecision(intercept=-99), evidence=made.evidence, accept=accept
    )
    assert never.measures == plain.measures
    assert plain.measures["lesion_count"] > 0
    np.testing.assert_array_equal(never.lesions.labels, plain.lesions.labels)
    np.testing.assert_array_equal(never.probability, plain.probability)
    assert plain.rejected.rows == plain.lesions.candidates == plain.lesions.probabilities == ()
    assert not plain.rejected.labels.any()
    assert set(plain.measures["threshold"]) == {"name", "parameter", "value"}
    if options["threshold"] == "value=1.5":
        assert (plain.lesions.labels[made.filled] > 0).any()  # even there


def test_a_scaled_map_has_the_same_lesions() -> None:
    made = scene(1)
    once, scaled = (replace(made, anomaly=f * made.anomaly).judged() for f in (np.float32(1), np.float32(4)))
    for name in ("lesions", "rejected"):
        one, other = getattr(once, name), getattr(scaled, name)
        assert one.labels.any()
        assert np.array_equal(one.labels, other.labels)
        np.testing.assert_allclose(one.probabilities, other.probabilities)
    np.testing.assert_allclose(once.probability, scaled.probability, atol=1e-6)


@pytest.mark.parametrize("rule", ["tail=1", "quantile=0.8"])
@pytest.mark.parametrize("seed", [0, 2, 5])
def test_nothing_depends_on_the_order_of_storage(rule: str, seed: int) -> None:
    made = scene(seed)
    flipped = AFFINE @ np.array([[0, -1, 0, SHAPE[0] - 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])

    def turn(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array[::-1].swapaxes(0, 1))

    tissue = Tissue(*(turn(getattr(made.tissue, name)) for name in ("flair_z", "t1w_z", "mask", "grey")))
    other = Scene(turn(made.anomaly), tissue, turn(made.landmarks), turn(made.evidence), flipped)
    first, second = (each.judged(5.0, rule) for each in (made, other))
    assert first.measures["lesion_count"] > 0
    assert first.measures == second.measures
    np.testing.assert_allclose(turn(first.probability), second.probability, atol=1e-6)
    for name in ("lesions", "rejected"):
        one, two = getattr(first, name), getattr(second, name)
        np.testing.assert_array_equal(turn(one.labels) > 0, two.labels > 0)
        centres = [sorted((x.x, x.y, x.z) for x in found.rows) for found in (one, two)]
        np.testing.assert_allclose(
            np.reshape(centres[0], (-1, 3)), np.reshape(centres[1], (-1, 3)), atol=1e-9
        )
        np.testing.assert_allclose(sorted(one.probabilities), sorted(two.probabilities), atol=1e-6)
        assert sorted(one.reasons) == sorted(two.reasons)


def test_what_lies_outside_the_brain_does_not_count() -> None:
    made = scene(6)
    grey = replace(made.tissue, grey=made.tissue.grey * made.mask)
    made = replace(made, tissue=grey)
    loud = replace(made, anomaly=np.where(made.mask, made.anomaly, np.float32(99)))
    for rule in ("quantile=0.9", "tail=1"):
        found = loud.judged(0.0, rule)
        assert found.measures == made.judged(0.0, rule).measures
        assert not (found.lesions.labels + found.rejected.labels)[~made.mask].any()
        assert not found.probability[~made.mask].any()


def padded(made: Scene, width: tuple[int, int, int]) -> Scene:
    """The same scene with so many voxels of air on each side of each axis."""

    def pad(array: NDArray[Any]) -> NDArray[Any]:
        return np.pad(array, [(n, n) for n in width])

    affine = made.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ width
    tissue = Tissue(*(pad(getattr(made.tissue, name)) for name in ("flair_z", "t1w_z", "mask", "grey")))
    return Scene(pad(made.anomaly), tissue, pad(made.landmarks), pad(made.evidence), affine)


def test_more_air_around_the_brain_changes_nothing() -> None:
    made = scene(4)
    few, many = (padded(made, width).judged(5.0) for width in ((10, 11, 9), (15, 12, 20)))
    assert few.measures == many.measures
    assert few.measures["lesion_count"] > 0 < few.measures["rejected_count"]
    inner = np.s_[15 - 10 : -5, 12 - 11 : -1, 20 - 9 : -11]
    np.testing.assert_array_equal(many.probability[inner], few.probability)
    for name in ("lesions", "rejected"):
        one, other = getattr(few, name), getattr(many, name)
        np.testing.assert_array_equal(other.labels[inner], one.labels)
        assert (other.labels > 0).sum() == (one.labels > 0).sum()
        assert one.probabilities == other.probabilities
        np.testing.assert_allclose(
            [(row.x, row.y, row.z) for row in one.rows], [(row.x, row.y, row.z) for row in other.rows]
        )


def test_without_ventricles_all_candidates_are_judged() -> None:
    found = scene(2, ventricles=False).judged()
    assert found.lesions.rows
    assert IN_VENTRICLES not in found.rejected.reasons
    assert all(place.ventricle_distance_mm == np.inf for place in found.lesions.places)


def test_no_candidate_at_all() -> None:
    made = scene(0)
    empty = replace(made, anomaly=np.zeros(SHAPE, np.float32)).judged()
    numbers = (
        "wmh_volume_ml", "lesion_count", "largest_lesion_ml", "rejected_count", "volume_ml_lower", "volume_ml_upper",
        "volume_ml_threshold_minus20", "volume_ml_threshold_plus20", "unstable_volume",
    )  # fmt: skip
    assert [empty.measures[name] for name in numbers] == [0] * len(numbers)
    assert empty.lesions.rows == empty.rejected.rows == empty.warnings == ()
    assert not empty.probability.any()
    assert run(0, "value=1e9").measures["lesion_count"] == 0
    assert not run(0, "value=1e9").lesions.labels.any()


def test_no_grey_matter_is_said() -> None:
    made = scene(0)
    with pytest.raises(BadDataError):
        replace(made, tissue=replace(made.tissue, grey=0 * made.tissue.grey)).judged()


# --------------------------------------------------------------------- warnings


def test_a_high_load_is_warned_of() -> None:
    assert run(0, "value=1e9").warnings == ()
    (warning,) = run(0, "value=0.01").warnings
    assert warning.code == HIGH_LOAD.code
    assert warning.code in MASK_WARNINGS
    assert float(warning.text.split(" ")[0]) > DetectionParameters.high_load_percent


@pytest.mark.parametrize(("faint", "unstable"), [(4, False), (5, True)])
def test_a_volume_that_hangs_on_the_threshold_is_warned_of(faint: int, unstable: bool) -> None:
    """Four voxels are clear; so many more are there at 0.8 times the threshold, and not at 1.2 times it."""
    made = scene(0)
    anomaly = np.zeros(SHAPE, np.float32)
    anomaly[3, 3:7, 1] = 5.0
    anomaly[11, 3 : 3 + faint, 1] = 1.1
    found = replace(made, anomaly=anomaly).segment("value=1")
    assert found.measures["volume_ml_threshold_plus20"] == pytest.approx(4 * VOXEL_ML, abs=6e-5)
    assert found.measures["volume_ml_threshold_minus20"] == pytest.approx((4 + faint) * VOXEL_ML, abs=6e-5)
    assert found.measures["unstable_volume"] == int(unstable)
    assert [warning.code for warning in found.warnings] == [UNSTABLE_VOLUME.code] * unstable
    assert UNSTABLE_VOLUME.code in MASK_WARNINGS
    if unstable:
        assert f"{9 * VOXEL_ML:.2f} mL at 0.8, {4 * VOXEL_ML:.2f} mL at 1.2" in found.warnings[0].text
    assert replace(made, anomaly=anomaly).segment("value=1", unstable_ratio=5.0).warnings == ()


def test_a_lesion_that_is_gone_at_a_higher_threshold_is_unstable_and_none_is_not() -> None:
    made = scene(0)
    anomaly = np.zeros(SHAPE, np.float32)
    anomaly[3, 3:7, 1] = 1.1
    faint = replace(made, anomaly=anomaly)
    assert faint.segment("value=1").measures["unstable_volume"] == 1
    assert faint.segment("value=2").measures["unstable_volume"] == 0


def test_an_unknown_rule_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--threshold"):
        run(0, "guess")


# ----------------------------------------------------------------------- tables
