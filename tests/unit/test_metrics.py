"""Evaluation measures against brute force, and their degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.core.metrics import auroc, average_precision, best_dice, dice

cases = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


@given(cases)
def test_best_dice_is_the_maximum_over_all_thresholds(case):
    score, truth = np.array(case[0], float), np.array(case[1])
    value, threshold = best_dice(score, truth)
    if not truth.any():
        assert math.isnan(value)
        return
    assert value == pytest.approx(max(dice(score >= t, truth) for t in np.unique(score)))
    assert dice(score >= threshold, truth) == pytest.approx(value)


@given(cases)
def test_auroc_counts_pairs(case):
    score, truth = np.array(case[0], float), np.array(case[1])
    if truth.all() or not truth.any():
        assert math.isnan(auroc(score, truth))
        return
    difference = score[truth][:, None] - score[~truth][None]
    assert auroc(score, truth) == pytest.approx(((difference > 0) + 0.5 * (difference == 0)).mean())


@given(cases)
def test_average_precision_is_the_step_sum(case):
    score, truth = np.array(case[0], float), np.array(case[1])
    if not truth.any():
        assert math.isnan(average_precision(score, truth))
        return
    total, before = 0.0, 0.0
    for t in np.unique(score)[::-1]:
        found = score >= t
        recall = (found & truth).sum() / truth.sum()
        total += (recall - before) * (found & truth).sum() / found.sum()
        before = recall
    assert average_precision(score, truth) == pytest.approx(total)


@given(cases)
def test_dice_is_symmetric_and_bounded(case):
    a, b = np.array(case[0]) > 2, np.array(case[1])
    if a.any() or b.any():
        assert 0 <= dice(a, b) == dice(b, a) <= 1
    else:
        assert math.isnan(dice(a, b))


def test_dice_of_known_masks():
    a = np.zeros((4, 4, 4), dtype=np.uint8)
    b = a.copy()
    a[:2], b[1:3] = 1, 1
    assert dice(a, a) == 1.0
    assert dice(a, b) == 0.5


def test_shape_does_not_matter():
    rng = np.random.default_rng(0)
    score, truth = rng.random((3, 4, 5)), rng.random((3, 4, 5)) > 0.7
    assert best_dice(score, truth) == best_dice(score.ravel(), truth.ravel())
    assert average_precision(score, truth) == average_precision(score.ravel(), truth.ravel())
