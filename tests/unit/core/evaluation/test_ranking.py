"""Ranking measures against brute force and scikit-learn, and their degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.core.evaluation.ranking import Ranking
from bids_wmh_uad.core.evaluation.threshold_free import aupro, auroc, average_precision, best_dice
from bids_wmh_uad.errors import BadDataError, GridMismatchError

LIMITS = (0.05, 0.3, 0.7, 1.0)
cases = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-3, 4), min_size=n, max_size=n).map(lambda x: np.array(x, float)),
        st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=n, max_size=n).map(np.array),
    )
)


def large():
    """Scores as the program makes them: float32, most of them tied at 0, some negative; 40 lesions."""
    rng = np.random.default_rng(4)
    labels = np.where(rng.random(300_000) < 0.02, rng.integers(1, 41, 300_000), 0)
    score = np.maximum(rng.standard_normal(300_000) + 1.2 * (labels > 0), 0) - (rng.random(300_000) < 0.01)
    return score.astype(np.float32), labels


def limited_area(x, y, limit):
    """Area of a broken line over [0, limit], segment by segment, divided by limit."""
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        end = min(x1, limit)
        if end > x0:
            top = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + top) / 2
    return area / limit


def pro_points(score, labels):
    """The per-region overlap curve, one threshold and one lesion at a time."""
    fpr, pro = [0.0], [0.0]
    for t in np.unique(score)[::-1]:
        found = score >= t
        fpr.append(found[labels == 0].mean())
        pro.append(np.mean([found[labels == n].mean() for n in np.unique(labels[labels != 0])]))
    return fpr, pro


def mixed(labels):
    return (labels != 0).any() and (labels == 0).any()


def same(a, b):
    return a == pytest.approx(b, rel=1e-9, abs=1e-12, nan_ok=True)


# Areas


@given(cases)
def test_best_dice_is_the_maximum_over_all_thresholds(case):
    score, truth = case[0], case[1] > 0
    value, threshold = best_dice(score, truth)
    if not truth.any():
        assert math.isnan(value)
        assert math.isnan(threshold)
        return
    assert same(value, max(dice(score >= t, truth) for t in np.unique(score)))
    assert same(dice(score >= threshold, truth), value)
    assert not any(same(dice(score >= t, truth), value) for t in np.unique(score) if t > threshold)


@given(cases)
def test_auroc_counts_pairs(case):
    score, truth = case[0], case[1] > 0
    if not mixed(truth):
        assert math.isnan(auroc(score, truth))
        return
    difference = score[truth][:, None] - score[~truth][None]
    assert same(auroc(score, truth), ((difference > 0) + 0.5 * (difference == 0)).mean())
    assert same(auroc(score, truth), roc_auc_score(truth, score))


@given(cases, st.sampled_from(LIMITS))
def test_limited_auroc_is_the_area_under_scikit_learns_curve(case, limit):
    score, truth = case[0], case[1] > 0
    if mixed(truth):
        fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
        assert same(auroc(score, truth, limit), limited_area(fpr, tpr, limit))
    else:
        assert math.isnan(auroc(score, truth, limit))


@given(cases)
def test_average_precision_is_the_step_sum(case):
    score, truth = case[0], case[1] > 0
    if not truth.any():
        assert math.isnan(average_precision(score, truth))
        return
    total, before = 0.0, 0.0
    for t in np.unique(score)[::-1]:
        found = score >= t
        recall = (found & truth).sum() / truth.sum()
        total += (recall - before) * (found & truth).sum() / found.sum()
        before = recall
    assert same(average_precision(score, truth), total)
    assert same(average_precision(score, truth), average_precision_score(truth, score))


@given(cases, st.sampled_from(LIMITS))
def test_aupro_is_the_area_of_the_loop(case, limit):
    score, labels = case
    if mixed(labels):
        assert same(aupro(score, labels, limit), limited_area(*pro_points(score, labels), limit))
        assert 0 <= aupro(score, labels, limit) <= 1
    else:
        assert math.isnan(aupro(score, labels, limit))


def test_large_tied_scores():
    score, labels = large()
    truth = labels > 0
    ranking = Ranking.of(score, labels)
    assert same(ranking.average_precision(), average_precision_score(truth, score))
    assert same(ranking.auroc(), roc_auc_score(truth, score))
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    assert same(ranking.auroc(0.3), limited_area(fpr.tolist(), tpr.tolist(), 0.3))
    # the overlap curve at chosen thresholds, and its area on the scores made coarse
    coarse = np.round(score, 1)
    assert same(aupro(coarse, labels, 0.3), limited_area(*pro_points(coarse, labels), 0.3))
    t = score[score > 0][::5000]
    hits = np.array([[(score[labels == n] >= at).mean() for n in range(1, 41)] for at in t]).mean(axis=1)
    assert same(ranking.overlap[np.searchsorted(-ranking.thresholds, -t)], hits)


@given(cases)
def test_one_lesion_makes_pro_roc(case):
    score, labels = case
    one = (labels > 0).astype(int)
    assert same(aupro(score, one, 0.3), auroc(score, one, 0.3))


def test_lesions_weigh_equally():
    score = np.array([5.0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 0, 0])
    labels = np.array([7, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0])
    assert aupro(score, labels, 0.3) == pytest.approx(0.5)
    assert auroc(score, labels, 0.3) == pytest.approx(1 / 9)


# Curves


@given(cases)
def test_counts_and_dice_are_those_of_masks(case):
    score, labels = case
    truth = labels > 0
    ranking = Ranking.of(score, labels)
    at = np.array([[-9.0, -3, -0.5, 0], [0.1, 4, 9, np.inf]])
    true, false = ranking.counts_at(at)
    assert true.shape == false.shape == at.shape
    assert true.tolist() == [[int((truth & (score >= t)).sum()) for t in row] for row in at]
    assert false.tolist() == [[int((~truth & (score >= t)).sum()) for t in row] for row in at]
    expected = [[dice(score >= t, truth) for t in row] for row in at]
    np.testing.assert_allclose(ranking.dice_at(at), expected, rtol=1e-12)
    assert [int(n) for n in ranking.counts_at(np.nan)] == [0, 0]


@given(cases)
def test_curves_pass_through_their_points(case):
    score, labels = case
    truth = labels > 0
    ranking = Ranking.of(score, labels)
    if not mixed(labels):
        assert np.isnan(ranking.roc([0.0, 0.5, 1.0])).all()
        assert np.isnan(ranking.pro([0.0, 0.5, 1.0])).all()
        return
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    highest = [tpr[fpr == at].max() for at in fpr]
    np.testing.assert_allclose(ranking.roc(fpr), highest, rtol=1e-12)
    middle = (fpr[1:] + fpr[:-1]) / 2
    moved = np.diff(fpr) > 0
    np.testing.assert_allclose(ranking.roc(middle)[moved], ((tpr[1:] + tpr[:-1]) / 2)[moved], rtol=1e-12)
    x, y = (np.array(axis) for axis in pro_points(score, labels))
    np.testing.assert_allclose(ranking.pro(x), [y[x == at].max() for at in x], rtol=1e-12)


@given(cases)
def test_precision_is_interpolated(case):
    score, labels = case
    truth = labels > 0
    grid = np.append(np.linspace(0, 1, 11), 1.01)
    found = Ranking.of(score, labels).precision(grid)
    assert math.isnan(found[-1])
    if not truth.any():
        assert np.isnan(found).all()
        return
    precision, recall, _ = precision_recall_curve(truth, score)
    precision, recall = precision[:-1], recall[:-1]  # without its made-up point of no findings
    expected = [precision[recall >= r - 1e-9].max() for r in grid[:-1]]
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-12)
    assert (np.diff(found[:-1]) <= 0).all()


# Properties


def everything(score, labels):
    ranking = Ranking.of(score, labels)
    grid = np.linspace(0, 1, 21)
    single = [ranking.auroc(), ranking.auroc(0.3), ranking.aupro(), ranking.aupro(0.3)]
    single += [ranking.average_precision(), ranking.best_dice()[0]]
    return np.concatenate([single, ranking.roc(grid), ranking.pro(grid), ranking.precision(grid)])


@given(cases)
def test_only_the_order_of_scores_counts(case):
    score, labels = case
    expected = everything(score, labels)
    for moved in (
        np.exp(score),
        3 * score - 7,
        np.arctan(score),
        score.astype(np.float32),
        score.astype(int),
    ):
        np.testing.assert_array_equal(everything(moved, labels), expected)


@given(cases, st.randoms(use_true_random=False))
def test_names_of_lesions_and_places_of_voxels_do_not_count(case, random):
    score, labels = case
    expected = everything(score, labels)
    renamed = np.array([0, 40_000_000, 1, -2])[labels]
    np.testing.assert_allclose(everything(score, renamed), expected, rtol=1e-12)
    order = list(range(len(score)))
    random.shuffle(order)
    np.testing.assert_allclose(everything(score[order], labels[order]), expected, rtol=1e-12)


@given(cases)
def test_measures_are_shares(case):
    values = everything(*case)
    assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()


def test_shape_and_storage_do_not_matter():
    rng = np.random.default_rng(0)
    score, labels = rng.random((3, 4, 5)), rng.integers(0, 3, (3, 4, 5))
    expected = everything(score.ravel(), labels.ravel())
    np.testing.assert_array_equal(everything(score, labels), expected)
    np.testing.assert_array_equal(everything(np.asfortranarray(score), labels), expected)
    assert best_dice(score, labels > 0) == best_dice(score.ravel(), labels.ravel())


def test_unsigned_scores_do_not_wrap():
    score, truth = np.array([0, 3, 200], dtype=np.uint8), np.array([False, False, True])
    assert auroc(score, truth) == average_precision(score, truth) == 1.0
    assert best_dice(score, truth) == (1.0, 200.0)
    assert auroc(score > 2, truth) == 0.75


# Degenerate cases


@pytest.mark.parametrize("labels", [[], [0], [0, 0]])
def test_without_lesions_all_is_undefined(labels):
    score = np.zeros(len(labels), dtype=np.float32)
    assert np.isnan(everything(score, np.array(labels, dtype=int))).all()
    ranking = Ranking.of(score, np.array(labels, dtype=int))
    assert math.isnan(ranking.best_dice()[1])
    assert (ranking.lesion_voxels, ranking.healthy_voxels) == (0, len(labels))
    assert [counts.tolist() for counts in ranking.counts_at([0.0, 1.0])] == [[0, 0], [len(labels), 0]]
    assert ranking.dice_at(1.0) != ranking.dice_at(1.0)  # nothing in either: undefined


def test_one_lesion_voxel_alone():
    ranking = Ranking.of(np.array([2.5]), np.array([1]))
    assert math.isnan(ranking.auroc())
    assert math.isnan(ranking.aupro(0.3))
    assert ranking.average_precision() == 1.0
    assert ranking.best_dice() == (1.0, 2.5)


def test_all_scores_tied():
    score, truth = np.zeros(10), np.arange(10) < 4
    assert auroc(score, truth) == 0.5
    assert auroc(score, truth, 0.3) == pytest.approx(0.15)
    assert average_precision(score, truth) == 0.4


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_must_be_finite(wrong):
    score = np.array([0.0, wrong, 1.0])
    for measure in (auroc, aupro, average_precision, best_dice, Ranking.of):
        with pytest.raises(BadDataError, match="finite"):
            measure(score, np.array([0, 1, 0]))


def test_shapes_must_agree():
    with pytest.raises(GridMismatchError, match="reference"):
        Ranking.of(np.zeros(3), np.zeros(4, dtype=int))
