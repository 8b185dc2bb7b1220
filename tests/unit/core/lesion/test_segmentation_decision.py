"""Candidates judged one by one: which become lesions, and what their voxels' probability is."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import AFFINE, SHAPE, VOXEL_ML, WEIGHTS, check_numbers, scene
from scipy import ndimage

from bids_wmh_uad.core.lesion.components import label_lesions
from bids_wmh_uad.core.lesion.decision import IN_VENTRICLES, LARGEST_WEIGHT, REASONS, LesionDecision
from bids_wmh_uad.core.lesion.segmentation import INTERVAL
from bids_wmh_uad.core.lesion.threshold import calibrated_probability, operating_point
from bids_wmh_uad.core.parameters import DetectionParameters

if TYPE_CHECKING:
    pass

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
    certain = LesionDecision(intercept=LARGEST_WEIGHT)
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


def test_weights_survive_a_nodes_inputs() -> None:
    assert LesionDecision(**asdict(WEIGHTS)) == WEIGHTS
