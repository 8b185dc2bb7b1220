"""Label-free thresholds: parsing, invariances, what they must and must not find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.core.lesion.threshold import (
    OperatingPoint,
    calibrated_probability,
    tail_point,
)
from bids_wmh_uad.core.lesion.threshold import operating_point as operating_point_of
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import BadDataError, UsageError

SHAPE = (30, 30, 30)
MASK = np.ones(SHAPE, dtype=bool)
DEFAULTS = DetectionParameters()


def operating_point(rule, *args):
    return operating_point_of(DetectionParameters(threshold=rule), *args)


def healthy(seed=0):
    return np.maximum(np.random.default_rng(seed).normal(size=SHAPE), 0).astype(np.float32)


@pytest.mark.parametrize(("text", "expected"), [
    ("gm=1.5", ("gm", 1.5)), ("quantile=0.9", ("quantile", 0.9)), ("value=-2e-1", ("value", -0.2)),
    ("tail", ("tail", DEFAULTS.tail)), ("gm", ("gm", DEFAULTS.gm_kappa)),
    ("quantile", ("quantile", DEFAULTS.quantile)),
])  # fmt: skip
def test_parser(text, expected):
    assert DetectionParameters(threshold=text).rule == expected


@pytest.mark.parametrize(
    "text", ["", "otsu", "value", "gm=", "gm=x", "gm=-1", "quantile=2", "tail=nan", "tail=0", "=3"]
)
def test_parser_refuses(text):
    with pytest.raises(UsageError) as caught:
        DetectionParameters(threshold=text)
    assert "--threshold" in str(caught.value)


def test_the_rules_are_what_they_say():
    score, half = healthy(), MASK.copy()
    half[15:] = False
    assert operating_point("value=3.5", score, MASK).value == 3.5
    assert operating_point("quantile=0.9", score, MASK).value == pytest.approx(np.quantile(score, 0.9))
    expected = 1.2 * np.quantile(score[half], 0.99)
    assert operating_point("gm=1.2", score, MASK, half).value == pytest.approx(expected)
    point = operating_point("quantile=0.9", score, MASK)
    assert point.apply(score, half)[half].sum() == (score[half] >= point.value).sum()
    assert not point.apply(score, half)[~half].any()


@pytest.mark.parametrize("rule", ["tail", "gm=1", "quantile=0.99"])
def test_gain_moves_the_threshold_with_the_score(rule):
    score = healthy()
    one, ten = (operating_point(rule, gain * score, MASK).value for gain in (1.0, 10.0))
    assert ten == pytest.approx(10 * one, rel=1e-4)


def test_default_finds_next_to_nothing_in_noise_and_is_blind_to_lesions():
    score = healthy()
    point = operating_point("tail", score, MASK)
    assert point.apply(score, MASK).mean() < 5e-4  # single voxels of noise, below any lesion size filter
    lesioned = score.copy()
    lesioned[:3] = 15.0  # a tenth of the reference tissue
    moved = operating_point("tail", lesioned, MASK)
    assert moved.value < 1.6 * point.value
    assert moved.apply(lesioned, MASK)[:3].all()


def test_no_reference_is_an_error_and_no_score_is_none():
    with pytest.raises(BadDataError):
        operating_point("tail", healthy(), MASK, np.zeros(SHAPE, dtype=bool))
    assert np.isfinite(operating_point("tail", np.zeros(SHAPE), MASK).value)


@given(st.floats(1e-3, 1e3), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_probability_is_monotone_and_half_at_the_threshold(threshold, values):
    score = np.sort(np.array([*values, threshold]))
    probability = calibrated_probability(score, threshold)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (np.diff(probability) >= 0).all()
    assert calibrated_probability(np.array([threshold]), threshold)[0] == pytest.approx(0.5)
    assert (probability[score <= 0] == 0).all()


@pytest.mark.parametrize("threshold", [-2.0, 0.0])
def test_probability_of_scores_that_may_be_negative(threshold):
    probability = calibrated_probability(np.array([threshold - 1, threshold, threshold + 1]), threshold)
    assert probability[0] < probability[1] < probability[2]
    assert probability[1] == pytest.approx(0.5)


def test_the_rule_takes_its_numbers_from_the_parameters():
    params = DetectionParameters(tail=2.0, edge=0.5, gm_kappa=2.0, gm_quantile=0.9, quantile=0.8)
    score = healthy()
    assert operating_point_of(params, score, MASK) == tail_point(score, MASK, None, 2.0, 0.5)
    for rule, expected in (("gm", 2 * np.quantile(score, 0.9)), ("quantile", np.quantile(score, 0.8))):
        assert operating_point_of(replace(params, threshold=rule), score, MASK).value == pytest.approx(
            expected
        )


def test_moving_a_point_moves_what_may_be_negative_upwards():
    point = OperatingPoint("gm", 1.0, -2.0)
    assert point.moved(0.2).value == pytest.approx(-1.6)
    assert OperatingPoint("tail", 3.0, 2.0, 0.5).moved(-0.2) == OperatingPoint("tail", 3.0, 1.6, 0.5)


def test_a_bright_lesion_ends_where_its_median_says_and_a_faint_one_at_the_threshold():
    point = OperatingPoint("tail", 3.0, 1.0, DEFAULTS.edge)
    score = np.zeros(SHAPE)
    score[4:9, 4:9, 4:9] = 1.2  # the border that partial volume makes
    score[5:8, 5:8, 5:8] = 1.4
    faint = score > 0
    score[6, 6, 6] = 1.6
    np.testing.assert_array_equal(point.apply(score, MASK), faint)
    bright = np.zeros(SHAPE, dtype=bool)
    bright[17:26, 17:26, 17:26] = True
    score[16:27, 16:27, 16:27] = 1.2
    score[bright] = 4.0
    found = point.apply(score, MASK)
    np.testing.assert_array_equal(found, faint | bright)
    np.testing.assert_array_equal(replace(point, edge=0.0).apply(score, MASK), score > 0)
    levels = point.levels(score, MASK)
    assert levels[16, 16, 16] == levels[20, 20, 20] == pytest.approx(DEFAULTS.edge * 4.0)
    assert levels[5, 5, 5] == levels[0, 0, 0] == 1.0
    np.testing.assert_array_equal(calibrated_probability(score, levels) >= 0.5, found)
