"""Our One-Class SVM against scikit-learn's: the contract, the numbers, the degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.svm import OneClassSVM as Libsvm
from sklearn.utils.estimator_checks import parametrize_with_checks

from bids_wmh_uad.core.svm.estimator import OneClassSVM
from bids_wmh_uad.core.svm.paradigms import Standardiser, fit_patient, fit_pooled
from bids_wmh_uad.core.svm.solver import kernel_block, scale_features, solve_dual
from bids_wmh_uad.errors import BadDataError, LatentsError

NUS = st.one_of(st.sampled_from([0.005, 0.03, 0.1, 0.5, 0.9]), st.floats(0.005, 0.9))


def random(rng, n, d):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def clustered(rng, n, d):
    return 5 * rng.normal(size=(4, d))[rng.integers(4, size=n)] + 0.01 * rng.normal(size=(n, d))


def duplicated(rng, n, d):
    return rng.normal(size=(max(1, n // 3), d))[rng.integers(max(1, n // 3), size=n)]


def collinear(rng, n, d):
    return rng.normal(size=(n, 1)) * rng.normal(size=(1, d))


def constant(rng, n, d):
    return np.full((n, d), rng.normal())


def extreme(rng, n, d):
    """Near float32's largest and smallest numbers at once."""
    magnitude = 10.0 ** rng.choice([-38, -3, 0, 3, 37], size=(n, 1))
    return (magnitude * rng.choice([-1, 1], size=(n, d)) * rng.random((n, d))).astype(np.float32)


KINDS = (random, clustered, duplicated, collinear, constant, extreme)


@parametrize_with_checks([OneClassSVM(), OneClassSVM(nu=0.1, gamma="auto", working_set=64)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), NUS, st.integers(1, 120), st.integers(1, 17), st.integers(0, 10**6))
@example(extreme, 0.005, 1, 2, 339)  # so small that gamma is no float32
def test_decision_values_are_libsvms(kind, nu, n, d, seed):
    # At an integer no coefficient need lie between its bounds: the offset is any value of an interval.
    assume(abs(nu * n - round(nu * n)) > 1e-6)
    rng = np.random.default_rng(seed)
    train, test = kind(rng, n, d), np.concatenate([kind(rng, 30, d), rng.normal(size=(3, d))])
    ours = OneClassSVM(nu=nu).fit(train)
    peer = Libsvm(nu=nu, tol=1e-10).fit(train)
    assert ours._gamma == pytest.approx(peer._gamma)
    np.testing.assert_allclose(ours.offset_, peer.offset_, atol=1e-4)
    for samples in (train, test):
        np.testing.assert_allclose(
            ours.decision_function(samples), peer.decision_function(samples), atol=1e-4
        )
        single = ours.decision_function(samples.astype(np.float32))
        expected = peer.decision_function(samples.astype(np.float32))
        np.testing.assert_allclose(single, expected, atol=1e-4)
    assert ours.dual_coef_.sum() == pytest.approx(nu * n)
    assert ours.dual_coef_.shape == (1, len(ours.support_))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), NUS, st.integers(2, 200), st.integers(0, 10**6))
def test_nu_bounds_outliers_and_support_vectors(kind, nu, n, seed):
    train = kind(np.random.default_rng(seed), n, 5)
    model = OneClassSVM(nu=nu).fit(train)
    assert (model.decision_function(train) < -1e-5).mean() <= nu + 1e-9
    assert len(model.support_) / n >= nu - 1e-9


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("nu", [0.01, 0.3])
def test_fewer_samples_than_one_over_nu(n, nu):
    train = np.random.default_rng(0).normal(size=(n, 3))
    ours, peer = OneClassSVM(nu=nu).fit(train), Libsvm(nu=nu, tol=1e-10).fit(train)
    np.testing.assert_allclose(ours.dual_coef_, peer.dual_coef_, atol=1e-6)
    np.testing.assert_allclose(ours.offset_, peer.offset_, atol=1e-6)
    np.testing.assert_array_equal(ours.support_, peer.support_)


def test_nu_of_one_is_the_mean_kernel():
    train = np.random.default_rng(0).normal(size=(40, 3))
    model = OneClassSVM(nu=1.0).fit(train)
    np.testing.assert_array_equal(model.dual_coef_, np.ones((1, 40)))
    assert model.decision_function(train).max() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "samples",
    [np.empty((0, 3)), np.array([[np.nan, 1.0]]), np.array([[np.inf, 1.0]]), np.ones(5), np.empty((3, 0))],
)
def test_unusable_samples_are_typed_errors(samples):
    with pytest.raises(LatentsError, match="Latents cannot be used"):
        OneClassSVM().fit(samples)
    fitted = OneClassSVM().fit(np.random.default_rng(0).normal(size=(9, 2)))
    with pytest.raises(ValueError, match="Latents cannot be used"):
        fitted.score_samples(samples)


@pytest.mark.parametrize(
    "options",
    [
        {"nu": 0.0}, {"nu": 1.5}, {"gamma": 0.0}, {"gamma": "wide"}, {"tol": -1.0}, {"working_set": 1}, {"device": 0},
    ],
)  # fmt: skip
def test_impossible_options(options):
    with pytest.raises(BadDataError, match=next(iter(options))):
        OneClassSVM(**options).fit(np.eye(3))


def test_every_parameter_has_declared_limits():
    assert set(OneClassSVM._parameter_constraints) == set(OneClassSVM().get_params())


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS[:-1]), NUS, st.integers(8, 90), st.sampled_from([torch.float32, torch.float64]))
def test_side_by_side_in_pieces_or_alone_the_dual_is_the_same(kind, nu, n, dtype):
    rng = np.random.default_rng(n)
    samples = torch.from_numpy(
        np.stack([Standardiser.fit(x)(x) for x in (kind(rng, n, 4) for _ in range(5))])
    )
    features = scale_features(samples.to(dtype), 0.3)
    tol, slack = (1e-4, 5e-3) if dtype == torch.float32 else (1e-9, 1e-8)
    # squared distances are expanded: a kernel value is as good as the largest square's rounding
    rounding = 4 * torch.finfo(dtype).eps * float(features.square().sum(-1).max())
    slack = max(slack, rounding * max(1.0, nu * n))
    together = solve_dual(features, nu * n, tol=tol)
    pieces = solve_dual(features, nu * n, tol=tol, working_set=max(8, n // 2))
    for solution in (together, pieces):
        assert ((solution.alpha >= 0) & (solution.alpha <= 1)).all()
        np.testing.assert_allclose(solution.alpha.sum(1), nu * n, rtol=1e-5)
        assert (solution.gap <= tol + slack).all()
        kernel = kernel_block(features, features)
        expected = torch.matmul(kernel, solution.alpha[..., None])[..., 0]
        np.testing.assert_allclose(solution.gradient, expected, atol=slack)
    same = max(slack, 1e-6)  # a gap of 1e-9 leaves more than that between two solutions' scores
    np.testing.assert_allclose(together.gradient, pieces.gradient, atol=same)
    for row in range(len(features)):
        alone = solve_dual(features[row : row + 1], nu * n, tol=tol)
        np.testing.assert_allclose(alone.gradient[0], together.gradient[row], atol=same)


def test_models_of_all_kinds_in_one_batch_are_solved():
    n, nu, tol = 75, 0.03, 2e-4
    rng = np.random.default_rng(5)
    many = [random(rng, n, 16) @ np.diag(0.75 ** np.arange(16)) for _ in range(300)]
    many += [kind(rng, n, 16) for kind in KINDS[:-1] for _ in range(40)]  # of few or of many support vectors
    samples = torch.from_numpy(np.stack([Standardiser.fit(x)(x) for x in rng.permutation(np.stack(many))]))
    features = scale_features(samples, 1 / 16)
    solution = solve_dual(features, nu * n, tol=tol)
    alpha, exact = solution.alpha.double(), features.double()
    score = torch.matmul(kernel_block(exact, exact), alpha[..., None])[..., 0]
    gaining = torch.where(alpha < 1, score, np.inf).amin(1)
    losing = torch.where(alpha > 0, score, -np.inf).amax(1)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    np.testing.assert_allclose(alpha.sum(1), nu * n, rtol=1e-5)
    assert (losing - gaining <= 1.1 * tol).all()  # what float32 loses in squared distances comes on top


def latents(n=600, d=16, seed=0):
    return random(np.random.default_rng(seed), n, d).astype(np.float32)


def test_patient_ensemble_is_the_mean_of_its_members():
    z = latents(900)
    samples = z.reshape(3, 300, 16)
    ensemble = fit_patient(samples, nu=0.1, gamma="scale")
    features = Standardiser.fit(z)(z).astype(np.float64)
    members = [
        Libsvm(nu=0.1, gamma=ensemble.gamma, tol=1e-9).fit(part) for part in features.reshape(3, 300, 16)
    ]
    expected = np.mean([member.score_samples(features) for member in members], axis=0)
    np.testing.assert_allclose(ensemble.score_samples(z), expected, rtol=1e-4)
    assert ensemble.offset == pytest.approx(np.mean([member.offset_[0] for member in members]), rel=1e-5)
    decision = ensemble.decision_function(z)
    np.testing.assert_allclose(decision, ensemble.score_samples(z) - ensemble.offset, atol=1e-5)


def test_a_feature_that_rests_at_its_median_does_not_outweigh_the_others():
    rng = np.random.default_rng(0)
    normal = rng.normal(5.0, 2.0, 20_000)
    resting = np.where(rng.random(20_000) < 0.6, 1e-3 * normal, 3.0 * normal)
    rare = np.where(rng.random(20_000) < 0.01, 7.0, 0.0)
    spread = Standardiser.fit(np.stack([normal, resting, rare, np.full(20_000, 4.0)], axis=1))
    features = spread(np.stack([normal, resting, rare, np.full(20_000, 4.0)], axis=1))
    assert features.dtype == np.float32
    assert features.std(axis=0) == pytest.approx([1, 1, 1, 0], rel=0.3)
    lesioned = np.concatenate([normal, np.full(600, 90.0)])[:, None]
    assert Standardiser.fit(lesioned).scale == pytest.approx(spread.scale[:1], rel=0.2)  # 3 % of lesions


def test_scale_and_offset_of_features_do_not_matter():
    z = latents(200)[None]
    other = z * np.linspace(0.1, 50, 16).astype(np.float32) + np.arange(16, dtype=np.float32)
    first, second = (fit_patient(x, nu=0.1, gamma="scale").score_samples(x[0]) for x in (z, other))
    np.testing.assert_allclose(first, second, rtol=2e-3, atol=1e-4)


def test_log_score_goes_on_where_the_kernel_underflows():
    z = latents()
    model = fit_patient(z[None], nu=0.1, gamma="scale")
    away = model.log_score_samples(z[:1] + np.array([[0.0], [30.0], [1e3], [1e4]], dtype=np.float32))
    assert np.isfinite(away).all()
    assert (np.diff(away) < 0).all()
    np.testing.assert_allclose(np.exp(model.log_score_samples(z)), model.score_samples(z), rtol=1e-6)
    exact = fit_patient(z[None], nu=0.1, gamma="scale")
    far = z[:1].astype(np.float64) + 30.0
    np.testing.assert_allclose(exact.log_score_samples(far), away[1:2], rtol=1e-4)


def test_single_precision_only_where_it_serves():
    z = latents()
    model = fit_patient(z[None], nu=0.1, gamma="scale")
    assert model.score_samples(z).dtype == np.float32
    assert model.score_samples(z.astype(np.float64)).dtype == np.float64
    np.testing.assert_allclose(model.score_samples(z), model.score_samples(z.astype(np.float64)), rtol=2e-5)
    wide = fit_patient(z[None], nu=0.1, gamma=1e3)  # expanded distances would cancel
    assert wide.score_samples(z).dtype == np.float64


def test_threads_do_not_change_a_byte():
    z = np.tile(latents(), (300, 1))
    model = fit_patient(latents()[None], nu=0.1, gamma="scale")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = model.log_score_samples(z)
        torch.set_num_threads(3)
        np.testing.assert_array_equal(model.log_score_samples(z), one)
    finally:
        torch.set_num_threads(before)


def test_pooled_is_the_estimator_on_standardised_latents():
    z = latents(1500)
    pooled = fit_pooled(z, nu=0.05, gamma=0.05, tol=1e-6)
    features = Standardiser.fit(z)(z).astype(np.float64)
    peer = Libsvm(nu=0.05, gamma=0.05, tol=1e-9).fit(features)
    np.testing.assert_allclose(pooled.decision_function(z), peer.decision_function(features), atol=1e-4)


def test_too_few_or_broken_latents():
    with pytest.raises(BadDataError, match="49"):
        fit_patient(latents(49)[None], nu=0.1, gamma="scale")
    broken = latents()
    broken[3, 5] = np.nan
    for fit in (
        lambda: fit_patient(broken[None], nu=0.1, gamma="scale"),
        lambda: fit_pooled(broken, nu=0.1, gamma=1.0),
    ):
        with pytest.raises(LatentsError, match="1 values"):
            fit()


def test_a_constant_feature_is_harmless():
    z = latents()
    z[:, 3] = 5.0
    assert np.isfinite(fit_patient(z[None], nu=0.1, gamma="scale").score_samples(z)).all()
