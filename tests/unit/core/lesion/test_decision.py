"""The decision over candidates: what its weights say happens, and the reason that it gives."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.core.lesion.candidates import Candidate
from bids_wmh_uad.core.lesion.decision import (
    HIGHEST_PEAK,
    IN_VENTRICLES,
    LEAST_CONTRAST,
    REASONS,
    LesionDecision,
    evidence,
)
from bids_wmh_uad.models import load_decision

TYPICAL = Candidate(
    peak=2.0, volume_mm3=60.0, thickness_mm=4.0, white=0.7, fluid=0.05, contrast=3.0, latent=1.0
)
PIECES = {
    "peak": "peak",
    "white": "white",
    "fluid": "fluid",
    "contrast": "contrast",
}
"""The candidate's value behind each weight."""

weight = st.floats(-3, 3).filter(lambda value: abs(value) > 1e-3)
candidates = st.builds(
    Candidate,
    peak=st.floats(1, 15),
    volume_mm3=st.floats(1, 1e5),
    thickness_mm=st.floats(0.5, 60),
    white=st.floats(0, 0.9),
    fluid=st.floats(0, 0.9),
    contrast=st.floats(LEAST_CONTRAST, 9),
    latent=st.floats(-5, 5),
)
decisions = st.builds(
    LesionDecision,
    intercept=st.floats(-3, 3),
    **dict.fromkeys(PIECES, weight),
    latent=st.just((0.5, -0.5)),
)


def trained() -> LesionDecision:
    """All pieces weigh, and the typical lesion is `TYPICAL`."""
    return LesionDecision(
        intercept=-4, peak=1, white=2, fluid=-3, contrast=0.5, latent=(1.0,),
        typical=(*evidence(TYPICAL).values(), TYPICAL.latent),
    )  # fmt: skip


@given(decisions, candidates, st.sampled_from(sorted(PIECES)), st.floats(1.01, 1.1))
def test_each_piece_counts_as_its_weight_says(
    decision: LesionDecision, candidate: Candidate, piece: str, more: float
) -> None:
    field, slope = PIECES[piece], getattr(decision, piece)
    larger = replace(candidate, **{field: getattr(candidate, field) * more + 0.001})
    change = decision.probability(larger) - decision.probability(candidate)
    assert change * slope >= 0
    if 1e-3 < decision.probability(candidate) < 1 - 1e-3:
        assert change * slope > 0


@given(candidates, st.floats(0.01, 5))
def test_latents_count_where_the_decision_knows_them_and_nowhere_else(
    candidate: Candidate, more: float
) -> None:
    larger = replace(candidate, latent=candidate.latent + more)
    plain, with_latents = LesionDecision(), LesionDecision(latent=(1.0, 2.0))
    assert plain.probability(larger) == plain.probability(candidate)
    assert with_latents.probability(larger) > with_latents.probability(candidate)


def test_log_odds_by_hand() -> None:
    odds = -4 + math.log(2) + 2 * 0.7 - 3 * 0.05 + 0.5 * math.log(3) + 1.0
    assert trained().probability(TYPICAL) == pytest.approx(1 / (1 + math.exp(-odds)))


@given(candidates, st.floats(-1e6, 1e6))
def test_a_probability_lies_between_0_and_1_and_is_neither(candidate: Candidate, intercept: float) -> None:
    assert 0 < LesionDecision(intercept=intercept).probability(candidate) < 1


def test_no_contrast_is_as_little_as_the_least() -> None:
    for contrast in (0.0, -2.0, -math.inf):
        assert evidence(replace(TYPICAL, contrast=contrast)) == evidence(
            replace(TYPICAL, contrast=LEAST_CONTRAST)
        )


def test_a_peak_beyond_the_highest_says_no_more() -> None:
    for peak in (HIGHEST_PEAK + 1, math.inf):
        high = replace(TYPICAL, peak=peak)
        assert evidence(high) == evidence(replace(TYPICAL, peak=HIGHEST_PEAK))


@pytest.mark.parametrize(
    ("piece", "worse"),
    [
        ("peak", {"peak": 1.0}),
        ("white", {"white": 0.0}),
        ("fluid", {"fluid": 0.9}),
        ("contrast", {"contrast": -1.0}),
        ("latent", {"latent": -2.0}),
    ],
)
def test_the_reason_is_what_differs_most_from_the_typical_lesion(piece: str, worse: dict[str, float]) -> None:
    decision = trained()
    assert decision.reason(replace(TYPICAL, **worse)) == REASONS[piece]
    assert decision.probability(replace(TYPICAL, **worse)) < decision.probability(TYPICAL)


def test_the_reason_weighs_by_the_log_odds_it_costs() -> None:
    both = replace(TYPICAL, fluid=0.9, white=0.5)  # -2.55 against -0.4
    assert trained().reason(both) == REASONS["fluid"]
    assert replace(trained(), fluid=-0.1).reason(both) == REASONS["white"]


@given(decisions, candidates)
def test_every_candidate_has_a_reason_and_without_a_network_it_is_never_the_networks(
    decision: LesionDecision, candidate: Candidate
) -> None:
    assert decision.reason(candidate) in REASONS.values()
    assert IN_VENTRICLES not in REASONS.values()
    plain = replace(decision, latent=(), typical=(*decision.typical[:-1], 0.0))
    if any(abs(x) > 1e-9 for x in _differences(plain, candidate)):
        assert plain.reason(candidate) != REASONS["latent"] or min(_differences(plain, candidate)) >= 0


def _differences(decision: LesionDecision, candidate: Candidate) -> list[float]:
    own = evidence(candidate)
    return [
        getattr(decision, name) * (value - usual)
        for (name, value), usual in zip(own.items(), decision.typical, strict=False)
    ]


@given(decisions)
def test_what_json_made_of_it_is_read_again(decision: LesionDecision) -> None:
    assert LesionDecision.of(asdict(decision)) == decision
    assert LesionDecision.of(json.loads(json.dumps(asdict(decision)))) == decision


@pytest.mark.parametrize(
    "wrong",
    [
        {"bias": 1.0},
        {"peak": "high"},
        {"peak": None},
        {"latent": ["x"]},
        {"latent": [[1.0]]},
        {"typical": None},
    ],
)
def test_what_is_no_decision_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        LesionDecision.of(asdict(LesionDecision()) | wrong)


@pytest.mark.parametrize("name", asdict(LesionDecision()))
def test_a_piece_that_is_missing_is_not_made_up(name: str) -> None:
    recorded = asdict(LesionDecision())
    del recorded[name]
    with pytest.raises(ValueError, match=rf"lacks {name}\b"):
        LesionDecision.of(recorded)


def test_weights_and_evidence_have_the_same_names_and_every_piece_a_reason() -> None:
    names = list(evidence(TYPICAL))
    assert [*names, "latent"] == list(REASONS)
    assert all(hasattr(LesionDecision(), name) for name in names)
    assert len(LesionDecision().typical) == len(REASONS)


def test_the_probability_of_a_peak_is_that_of_the_typical_lesion_with_it() -> None:
    decision = LesionDecision(typical=(*evidence(TYPICAL).values(), 0.0))
    peaks = np.array([0.2, 1.0, 3.0, 1e9])
    expected = [decision.probability(replace(TYPICAL, peak=float(peak))) for peak in peaks]
    np.testing.assert_allclose(decision.probability_of_peak(peaks), expected, rtol=1e-6)
    assert np.all(np.diff(expected) >= 0)


@pytest.mark.parametrize("decision", [LesionDecision(), load_decision("default")])
def test_what_makes_a_lesion_plainer_never_speaks_against_it(decision: LesionDecision) -> None:
    """A confluent lesion was once rejected for its size: shipped weights have the signs that their names promise."""
    assert decision.peak > 0
    assert decision.white > 0
    assert decision.contrast > 0
    assert decision.fluid <= 0
    assert decision.between <= 0
    grown = replace(TYPICAL, volume_mm3=20_000.0, thickness_mm=12.0, peak=4.0, latent=0.0)
    assert decision.probability(grown) > decision.probability(replace(TYPICAL, latent=0.0)) > 0.5
