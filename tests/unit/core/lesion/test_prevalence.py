"""A scan's own share of lesions among its candidates, and what it does to the decision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scenes import scene

from bids_wmh_uad.core.lesion.candidates import Candidate
from bids_wmh_uad.core.lesion.decision import LesionDecision

PLAIN = LesionDecision(intercept=0.0, peak=0.0, white=0.0, fluid=0.0, between=0.0, latent=(1.0,))
"""Its log-odds are the candidate's latent part."""


def draw(share: float, count: int, seed: int, strength: float = 2.0) -> list[Candidate]:
    """Candidates whose latent part is the true log-likelihood ratio of being a lesion."""
    rng = np.random.default_rng(seed)
    signs = np.where(rng.random(count) < share, 1, -1)
    ratios = rng.normal(signs * strength, math.sqrt(2 * strength))
    return [Candidate(1.0, 10.0, 2.0, 0.5, 0.0, latent=float(ratio)) for ratio in ratios]


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.9])
def test_the_share_is_found_from_the_candidates_alone(share: float) -> None:
    found = PLAIN.for_scan(draw(share, 4000, seed=1), half=1.0)
    assert 1 / (1 + math.exp(-found.intercept)) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.05, 0.95])
def test_fewer_candidates_are_misjudged_than_with_a_half(share: float) -> None:
    made = draw(share, 2000, seed=2, strength=1.0)
    rng = np.random.default_rng(2)
    truth = rng.random(2000) < share
    wrong = [
        np.mean(
            [
                (decision.probability(item) >= 0.5) != is_lesion
                for item, is_lesion in zip(made, truth, strict=True)
            ]
        )
        for decision in (PLAIN, PLAIN.for_scan(made, half=10.0))
    ]
    assert wrong[1] < 0.5 * wrong[0]


def test_few_candidates_say_little_and_none_say_nothing() -> None:
    assert PLAIN.for_scan([], half=10.0) == PLAIN
    unlikely = [Candidate(1.0, 10.0, 2.0, 0.5, 0.0, latent=-30.0)]
    assert PLAIN.for_scan(unlikely, half=10.0).intercept == pytest.approx(math.log(5 / 6), abs=1e-3)
    assert PLAIN.for_scan(unlikely * 90, half=10.0).intercept == pytest.approx(math.log(5 / 95), abs=1e-3)
    assert PLAIN.for_scan(unlikely * 90, half=1e12).intercept == pytest.approx(0.0, abs=1e-6)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    made = draw(0.3, 60, seed=3)
    once, reversed_ = (PLAIN.for_scan(items, half=10.0).intercept for items in (made, made[::-1]))
    assert once == pytest.approx(reversed_, abs=1e-3)


def test_a_scan_moves_all_its_candidates_alike_and_hidden_ones_count_for_nothing() -> None:
    made = scene(3)
    fixed, own = made.judged(), made.judged(prior_candidates=2.0)
    shifts = {
        round(math.log(one / (1 - one)) - math.log(other / (1 - other)), 4)
        for one, other in zip(sorted(chances(own)), sorted(chances(fixed)), strict=True)
    }
    assert len(shifts) == 1
    assert abs(shifts.pop()) > 0.1
    hidden = [chance for chance in (*own.lesions.probabilities, *own.rejected.probabilities) if chance == 0]
    assert hidden


def chances(found) -> list[float]:
    """Probabilities of the candidates outside the ventricles."""
    every = (*found.lesions.probabilities, *found.rejected.probabilities)
    return [chance for chance in every if chance > 0]
