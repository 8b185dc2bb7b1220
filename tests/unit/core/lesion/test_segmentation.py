"""From an anomaly map to lesions and numbers: what must hold between the numbers."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bids_wmh_uad.bids.tables import TABLE_COLUMNS, write_lesion_table
from bids_wmh_uad.core.lesion.candidates import Surroundings
from bids_wmh_uad.core.lesion.components import label_lesions
from bids_wmh_uad.core.lesion.decision import IN_VENTRICLES, REASONS, LesionDecision
from bids_wmh_uad.core.lesion.landmarks import Landmark, Tissue
from bids_wmh_uad.core.lesion.segmentation import INTERVAL, MASK_WARNINGS, Segmentation, segment
from bids_wmh_uad.core.lesion.threshold import calibrated_probability, operating_point
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import HIGH_LOAD, UNSTABLE_VOLUME, BadDataError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (14, 12, 6)
AFFINE = np.array([[-0.9, 0, 0, 40], [0, 1.1, 0, -50], [0, 0, 4, 10], [0, 0, 0, 1.0]])
SPACING = (0.9, 1.1, 4.0)
VOXEL_ML = 0.9 * 1.1 * 4 / 1000
WEIGHTS = LesionDecision(intercept=-1.9, peak=1.5, white=1.0, fluid=-1.5, latent=(1.0, 1.0))
"""Weights by which random candidates are sometimes lesions, and sometimes not."""


@dataclass(frozen=True)
class Scene:
    anomaly: NDArray[Any]
    tissue: Tissue
    landmarks: NDArray[Any]
    evidence: NDArray[Any]
    affine: NDArray[Any]

    @property
    def mask(self) -> NDArray[Any]:
        return self.tissue.mask

    @property
    def filled(self) -> NDArray[Any]:
        return Surroundings.of(self.tissue, self.landmarks, self.affine).filled

    def segment(self, threshold: str, smallest: float = 0.0, **options: Any) -> Segmentation:
        given = {name: options.pop(name) for name in ("decision", "evidence") if name in options}
        parameters = DetectionParameters(threshold=threshold, min_lesion_volume=smallest, **options)
        return segment(self.anomaly, self.tissue, self.landmarks, self.affine, parameters=parameters, **given)

    def judged(self, smallest: float = 0.0, threshold: str = "tail=1", **options: Any) -> Segmentation:
        """By `WEIGHTS`, with the network's evidence."""
        return self.segment(threshold, smallest, decision=WEIGHTS, evidence=self.evidence, **options)


def scene(seed: int, ventricles: bool = True) -> Scene:
    """A skewed random map with a mask smaller than the grid, grey and white matter, and two ventricles with a septum."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    mask[1:-1, 1:-1] = True
    anomaly = (rng.gamma(1.0, 1.0, SHAPE) * mask).astype(np.float32)
    grey = rng.random(SHAPE) > 0.5
    t1w = np.where(grey, -4, 0) + rng.normal(0, 0.3, SHAPE)
    flair = np.where(grey, 1, 0) + rng.normal(0, 0.3, SHAPE)
    landmarks = np.zeros(SHAPE, np.uint8)
    if ventricles:
        landmarks[5:9, 4:8, 2:4] = Landmark.VENTRICLES
        landmarks[6, 4:8, 2:4] = 0  # septum
    fluid = landmarks == Landmark.VENTRICLES
    t1w[fluid], flair[fluid] = -10, -8
    t1w[1, 1:3], flair[1, 1:3] = -10, -8
    tissue = Tissue(
        flair.astype(np.float32), t1w.astype(np.float32), mask, np.where(grey, 0.9, 0.1).astype(np.float32)
    )
    return Scene(anomaly, tissue, landmarks, rng.normal(size=SHAPE).astype(np.float32), AFFINE)


def run(seed: int, threshold: str, smallest: float = 0.0) -> Segmentation:
    return scene(seed).segment(threshold, smallest)


# --------------------------------------------------------- rules that take the threshold at its word


@settings(max_examples=30)
@given(seed=st.integers(0, 999), low=st.floats(0.1, 6), step=st.floats(0, 3), smallest=st.floats(0, 40))
def test_raising_the_threshold_never_grows_the_volume(
    seed: int, low: float, step: float, smallest: float
) -> None:
    first, second = run(seed, f"value={low}", smallest), run(seed, f"value={low + step}", smallest)
    assert second.measures["wmh_volume_ml"] <= first.measures["wmh_volume_ml"]
    assert not np.any((second.lesions.labels > 0) & ~(first.lesions.labels > 0))


def check_numbers(found: Segmentation, smallest: float) -> None:
    """What the summary says is what the image has."""
    measures, lesions = found.measures, found.lesions
    volume = (lesions.labels > 0).sum() * VOXEL_ML
    assert measures["wmh_volume_ml"] == pytest.approx(volume, abs=6e-5)
    assert measures["lesion_count"] == lesions.labels.max() == len(lesions.rows) == len(lesions.places)
    assert measures["rejected_count"] == found.rejected.labels.max() == len(found.rejected.rows)
    assert sum(lesion.volume_mm3 for lesion in lesions.rows) == pytest.approx(1000 * volume)
    assert all(row.volume_mm3 >= smallest * (1 - 1e-9) for row in (*lesions.rows, *found.rejected.rows))
    largest = max((lesion.volume_mm3 for lesion in lesions.rows), default=0) / 1000
    assert measures["largest_lesion_ml"] == pytest.approx(largest, abs=6e-5)
    assert measures["volume_ml_lower"] <= measures["wmh_volume_ml"] <= measures["volume_ml_upper"]


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


# ------------------------------------------------------------------ the decision


@settings(max_examples=30)
@given(seed=st.integers(0, 999), smallest=st.floats(0, 12), accept=st.floats(0, 1), tail=st.floats(0.2, 2))
def test_lesions_and_rejected_are_all_candidates_and_share_none(
    seed: int, smallest: float, accept: float, tail: float
) -> None:
    made = scene(seed)
    found = made.judged(smallest, f"tail={tail}", accept=accept)
    check_numbers(found, smallest)
    lesions, rejected = found.lesions, found.rejected
    assert not ((lesions.labels > 0) & (rejected.labels > 0)).any()
    params = DetectionParameters(threshold=f"tail={tail}")
    above = operating_point(params, made.anomaly, made.mask, made.tissue.likely_grey).apply(
        made.anomaly, made.mask
    )
    parts = [label_lesions(above & part, AFFINE, smallest) > 0 for part in (made.filled, ~made.filled)]
    np.testing.assert_array_equal((lesions.labels > 0) | (rejected.labels > 0), parts[0] | parts[1])
    np.testing.assert_array_equal((rejected.labels > 0) & made.filled, parts[0])
    for group in (lesions, rejected):
        assert len(group.rows) == len(group.candidates) == len(group.probabilities) == len(group.reasons)
        for row, candidate in zip(group.rows, group.candidates, strict=True):
            assert candidate.volume_mm3 == pytest.approx(row.volume_mm3)
            assert candidate.peak == pytest.approx(row.max_score / found.measures["threshold"]["value"])
    assert all(accept <= probability for probability in lesions.probabilities)
    assert set(lesions.reasons) <= {""}
    for row, probability, reason in zip(rejected.rows, rejected.probabilities, rejected.reasons, strict=True):
        hidden = made.filled[rejected.labels == row.index]
        assert hidden.all() == hidden.any() == (reason == IN_VENTRICLES) == (probability == 0)
        assert probability == 0 or probability < accept
        assert reason == IN_VENTRICLES or reason in REASONS.values()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_inside_the_ventricles_is_a_lesion_however_low_the_bar(seed: int) -> None:
    made = scene(seed)
    made.anomaly[6, 5:7, 2:4] = 50  # on the septum, at which the landmarks have a gap
    for accept in (0.0, 0.5, 1.0):
        found = made.judged(accept=accept)
        assert made.filled[6, 5:7, 2:4].all()
        assert not found.lesions.labels[made.filled].any()
        number = int(found.rejected.labels[6, 5, 2])
        assert number > 0
        assert found.rejected.reasons[number - 1] == IN_VENTRICLES
        assert found.probability[6, 5, 2] == 0
    # ... nor do the volumes at the other thresholds have them
    inside = replace(made, anomaly=np.where(made.filled, made.anomaly, np.float32(0)))
    measures = inside.judged(accept=0.0, threshold="tail=0.1").measures
    assert measures["rejected_count"] > 0
    assert [measures[f"volume_ml_threshold_{side}20"] for side in ("minus", "plus")] == [0, 0]


def test_accept_at_its_ends() -> None:
    made = scene(4)
    everything, nothing, default = (made.judged(accept=value) for value in (0.0, 1.0, 0.5))
    assert set(everything.rejected.reasons) <= {IN_VENTRICLES}
    assert everything.measures["lesion_count"] > default.measures["lesion_count"] > 0
    assert nothing.measures["lesion_count"] == nothing.measures["wmh_volume_ml"] == 0
    assert nothing.measures["volume_ml_threshold_minus20"] == 0
    certain = LesionDecision(intercept=1e9)
    assert made.segment("tail=1", accept=1.0, decision=certain).measures["lesion_count"] == 0
    for found in (everything, nothing, default):
        assert found.measures["threshold"]["accept"] == {everything: 0.0, nothing: 1.0, default: 0.5}[found]
        np.testing.assert_array_equal(
            found.probability, default.probability
        )  # says what is likely, not what was taken


@settings(max_examples=15)
@given(seed=st.integers(0, 999), low=st.floats(0, 1), step=st.floats(0, 1))
def test_a_higher_bar_never_takes_more(seed: int, low: float, step: float) -> None:
    made = scene(seed)
    first, second = made.judged(accept=low), made.judged(accept=min(1.0, low + step))
    assert not ((second.lesions.labels > 0) & ~(first.lesions.labels > 0)).any()


def test_a_voxels_probability_is_its_own_times_its_candidates() -> None:
    made = scene(8)
    found = made.judged()
    params = DetectionParameters(threshold="tail=1")
    point = operating_point(params, made.anomaly, made.mask, made.tissue.likely_grey)
    own = calibrated_probability(made.anomaly, point.levels(made.anomaly, made.mask), params.steepness)
    assert found.rejected.rows
    assert found.lesions.rows
    for group in (found.lesions, found.rejected):
        for row, chance in zip(group.rows, group.probabilities, strict=True):
            inside = group.labels == row.index
            np.testing.assert_allclose(found.probability[inside], own[inside] * chance, rtol=1e-5)
    apart = made.mask & ~ndimage.binary_dilation(
        (found.lesions.labels + found.rejected.labels) > 0, np.ones((3, 3, 3))
    )
    alone = WEIGHTS.probability_of_peak(made.anomaly[apart] / point.value)
    hidden = made.filled[apart] | (own[apart] >= 0.5)
    np.testing.assert_allclose(
        found.probability[apart], np.where(hidden, 0, own[apart] * alone), rtol=1e-4, atol=1e-7
    )
    assert not found.probability[~made.mask].any()


def test_the_interval_is_the_volume_of_likely_and_of_possible_voxels() -> None:
    assert INTERVAL == (0.95, 0.05)
    found = scene(9).judged(threshold="tail=0.5")
    for key, level in zip(("volume_ml_lower", "volume_ml_upper"), INTERVAL, strict=True):
        assert found.measures[key] == pytest.approx((found.probability >= level).sum() * VOXEL_ML, abs=6e-5)
    nothing = scene(9).judged(threshold="tail=0.5", accept=1.0).measures
    assert nothing["volume_ml_lower"] == nothing["wmh_volume_ml"] == 0 < nothing["volume_ml_upper"]


def test_evidence_decides_where_the_decision_has_latents() -> None:
    made = scene(4)
    for_it, against = (
        made.segment("tail=1", decision=WEIGHTS, evidence=np.full(SHAPE, value, np.float32))
        for value in (50.0, -50.0)
    )
    assert not for_it.lesions.labels[made.filled].any()
    assert set(for_it.rejected.reasons) == {IN_VENTRICLES}
    assert not against.lesions.rows
    assert set(against.rejected.reasons) == {IN_VENTRICLES, REASONS["latent"]}
    plain = replace(WEIGHTS, latent=())
    without = made.segment("tail=1", decision=plain)
    assert made.segment("tail=1", decision=plain, evidence=made.evidence).measures == without.measures


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
@pytest.mark.parametrize("seed", range(3))
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


def read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_both_tables_are_bids_lookup_tables(tmp_path: Path) -> None:
    found = scene(4).judged(8.0, accept=0.3, threshold="tail=1.5")
    for lesions in (found.lesions, found.rejected):
        rows = read(write_lesion_table(tmp_path / "lesions.tsv", lesions))
        assert tuple(rows[0]) == TABLE_COLUMNS
        assert tuple(rows[0])[:2] == ("index", "name")
        assert [int(row["index"]) for row in rows] == sorted(set(np.unique(lesions.labels)) - {0})
        assert len({row["name"] for row in rows}) == len(rows) > 1
        columns = (lesions.rows, lesions.candidates, lesions.probabilities, lesions.reasons, lesions.places)
        for row, lesion, candidate, probability, reason, place in zip(rows, *columns, strict=True):
            assert int(row["n_voxels"]) == (lesions.labels == lesion.index).sum()
            assert float(row["volume_mm3"]) == pytest.approx(lesion.volume_mm3, abs=1e-4)
            assert float(row["probability"]) == pytest.approx(probability, abs=1e-4)
            assert row["reason"] == (reason or "n/a")
            assert row["region"] == place.region
            for name in ("peak", "thickness_mm", "white", "fluid", "latent"):
                assert float(row[name]) == pytest.approx(getattr(candidate, name), abs=1e-4)


def test_a_table_has_n_a_for_what_was_not_judged_or_is_endless(tmp_path: Path) -> None:
    found = scene(4, ventricles=False).segment("value=2.5", 8.0)
    rows = read(write_lesion_table(tmp_path / "t.tsv", found.lesions))
    assert rows
    judged = TABLE_COLUMNS[TABLE_COLUMNS.index("probability") :]
    assert {row["ventricle_distance_mm"] for row in rows} == {"n/a"}
    assert {row[name] for row in rows for name in judged} == {"n/a"}
    assert all(float(row["volume_mm3"]) > 0 for row in rows)
    lesions = scene(4).judged(8.0).lesions
    endless = replace(lesions, candidates=tuple(replace(x, peak=np.inf) for x in lesions.candidates))
    assert {row["peak"] for row in read(write_lesion_table(tmp_path / "t.tsv", endless))} == {"n/a"}


def test_a_table_without_lesions_has_its_header(tmp_path: Path) -> None:
    write_lesion_table(tmp_path / "t.tsv", run(0, "value=1e9").lesions)
    assert (tmp_path / "t.tsv").read_text() == "\t".join(TABLE_COLUMNS) + "\n"


def test_weights_survive_a_nodes_inputs() -> None:
    assert LesionDecision(**asdict(WEIGHTS)) == WEIGHTS
