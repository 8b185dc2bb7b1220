"""Cohort statistics against exact hand formulas, an exhaustive bootstrap and published software's values."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from bids_wmh_uad.core.evaluation.agreement import bland_altman, clustered_mean, icc_agreement

A = [1.0, 4.5, 2.25, 10.0, 7.5, 3.0]
B = [1.5, 4.0, 3.25, 9.0, 8.5, 2.0]
PINGOUIN_ICC_A1 = 0.9661717722232663
"""pingouin 0.7.0: intraclass_corr of A and B, ICC(A,1)."""
tables = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=12)


def seeded(seed=0):
    return np.random.default_rng(seed)


def anova_icc(pairs):
    """ICC(2,1) in exact fractions, from sums of squares about the grand mean; None when undefined."""
    n, k = len(pairs), 2
    values = [Fraction(x) for pair in pairs for x in pair]
    grand = sum(values) / (n * k)
    total = sum((x - grand) ** 2 for x in values)
    rows = k * sum((Fraction(sum(pair), k) - grand) ** 2 for pair in pairs)
    columns = n * sum((Fraction(sum(column), n) - grand) ** 2 for column in zip(*pairs, strict=True))
    ms_rows, ms_columns, ms_error = rows / (n - 1), columns, (total - rows - columns) / (n - 1)
    below = ms_rows + (k - 1) * ms_error + Fraction(k, n) * (ms_columns - ms_error)
    return (ms_rows - ms_error) / below if below else None


# Bland-Altman


def test_bland_altman_of_known_values():
    found = bland_altman(A, B)
    differences = [a - b for a, b in zip(A, B, strict=True)]
    assert found.bias == pytest.approx(mean(differences), rel=1e-12)
    assert found.sd == pytest.approx(stdev(differences), rel=1e-12)
    assert found.low == pytest.approx(mean(differences) - 1.96 * stdev(differences), rel=1e-12)
    assert found.high == pytest.approx(mean(differences) + 1.96 * stdev(differences), rel=1e-12)
    assert found.n == 6


@given(tables)
def test_bland_altman_changes_sign_with_order(table):
    a, b = np.array(table, float).T
    one, other = bland_altman(a, b), bland_altman(b, a)
    assert one.bias == -other.bias
    assert one.low == pytest.approx(-other.high)
    assert one.sd == pytest.approx(other.sd)


def test_bland_altman_leaves_incomplete_pairs_out():
    assert bland_altman([*A, np.nan, 1.0, np.inf], [*B, 1.0, np.nan, 2.0]) == bland_altman(A, B)


def test_bland_altman_of_few():
    none, one = bland_altman([], []), bland_altman([3.0], [1.0])
    assert (none.n, one.n, one.bias) == (0, 1, 2.0)
    assert all(map(math.isnan, (none.bias, none.sd, none.low, none.high, one.sd, one.low, one.high)))


# ICC


def test_icc_is_that_of_pingouin():
    assert icc_agreement(A, B) == pytest.approx(PINGOUIN_ICC_A1, rel=1e-12)


@given(tables)
def test_icc_is_that_of_the_exact_analysis_of_variance(table):
    a, b = np.array(table, float).T
    expected = anova_icc(table)
    if expected is None:
        assert math.isnan(icc_agreement(a, b))
    else:
        assert icc_agreement(a, b) == pytest.approx(float(expected), rel=1e-9, abs=1e-12)
        assert icc_agreement(a, b) <= 1 + 1e-12


@given(tables, st.floats(0.1, 100), st.floats(-100, 100))
def test_icc_ignores_order_unit_and_origin(table, unit, origin):
    a, b = np.array(table, float).T
    value = icc_agreement(a, b)
    close = pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)
    assert icc_agreement(b, a) == close
    assert icc_agreement(a[::-1], b[::-1]) == close
    assume(not math.isnan(value))
    assert icc_agreement(unit * a + origin, unit * b + origin) == close


def test_icc_falls_with_bias_where_a_correlation_does_not():
    a = np.arange(10.0)
    assert icc_agreement(a, a) == pytest.approx(1.0)
    assert icc_agreement(a + 5, a) < 0.6
    assert icc_agreement(-a, a) < 0


@pytest.mark.parametrize(
    ("a", "b"),
    [([], []), ([1.0], [2.0]), ([0.1] * 7, [0.1] * 7), ([0.1, 0.2], [0.2, 0.1]), ([np.nan, 1.0], [2.0, 1.5])],
)
def test_icc_undefined(a, b):
    assert math.isnan(icc_agreement(a, b))


# Clustered mean


def test_interval_is_the_quantile_of_all_resamples():
    """Four subjects with 1 to 4 sessions: all 256 equally likely resamples against the drawn ones."""
    subjects = [[0.1], [0.9, 0.8], [0.5, 0.4, 0.45], [0.2, 0.25, 0.3, 0.35]]
    values = [value for sessions in subjects for value in sessions]
    names = [f"sub-{i}" for i, sessions in enumerate(subjects) for _ in sessions]
    found = clustered_mean(values, names, seeded(), replicates=40_000, confidence=0.9)
    exact = [mean([v for s in drawn for v in s]) for drawn in itertools.product(subjects, repeat=4)]
    assert found.low == pytest.approx(np.quantile(exact, 0.05), abs=0.01)
    assert found.high == pytest.approx(np.quantile(exact, 0.95), abs=0.01)
    assert found.mean == pytest.approx(mean(values))
    assert found.median == pytest.approx(0.375)
    assert (found.n, found.clusters) == (10, 4)


def test_one_value_a_cluster_is_the_plain_bootstrap():
    values = seeded(1).random(25)
    found = clustered_mean(values, np.arange(25), seeded())
    plain = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=seeded())
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval), rel=1e-12)


def test_copies_within_a_cluster_bring_no_certainty():
    values = seeded(2).random(12)
    once = clustered_mean(values, np.arange(12), seeded())
    often = clustered_mean(np.repeat(values, 5), np.repeat(np.arange(12), 5), seeded())
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=1e-12)
    assert (often.n, often.clusters) == (60, 12)
    alone = clustered_mean(np.repeat(values, 5), np.arange(60), seeded())
    assert alone.high - alone.low < 0.7 * (once.high - once.low)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-5, 5)), min_size=1, max_size=12), st.randoms())
def test_order_of_sessions_and_missing_values_do_not_count(rows, random):
    def run(rows):
        return clustered_mean([v for _, v in rows], [str(c) for c, _ in rows], seeded(), replicates=50)

    expected = run(rows)
    shuffled = [*rows, (9, np.nan), (0, np.inf)]
    random.shuffle(shuffled)
    found = run(shuffled)
    assert (found.n, found.clusters, found.median) == (expected.n, expected.clusters, expected.median)
    for name in ("mean", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), nan_ok=True, abs=1e-12)
    if found.clusters > 1:
        values = [v for _, v in rows]
        assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


def test_same_seed_same_interval():
    values, names = seeded(3).random(30), np.arange(30) // 3
    assert clustered_mean(values, names, seeded(7)) == clustered_mean(values, names, seeded(7))


def test_few_clusters():
    none = clustered_mean([np.nan], ["a"], seeded())
    one = clustered_mean([1.0, 2.0], ["a", "a"], seeded())
    constant = clustered_mean([2.0, 2.0], ["a", "b"], seeded())
    assert (none.n, none.clusters, one.n, one.clusters) == (0, 0, 2, 1)
    assert all(map(math.isnan, (none.mean, none.median, none.low, none.high, one.low, one.high)))
    assert (one.mean, one.median) == (1.5, 1.5)
    assert (constant.low, constant.high) == (2.0, 2.0)
