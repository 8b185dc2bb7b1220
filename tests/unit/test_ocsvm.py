"""The fast ensemble against scikit-learn's own OneClassSVM."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import OneClassSVM

from bids_wmh_uad.core.ocsvm import Standardiser, fit_patient
from bids_wmh_uad.errors import BadDataError


def latents(n=600, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)).astype(np.float32)


def fit(z, **options):
    settings_ = {"nu": 0.1, "gamma": "scale", "n_samples": len(z), "n_models": 1, **options}
    return fit_patient(z, **settings_, rng=np.random.default_rng(0))


@settings(max_examples=15)
@given(st.floats(0.02, 0.9), st.sampled_from(["scale", 0.01, 0.3]), st.integers(0, 1000))
def test_one_member_is_scikit_learn(nu, gamma, seed):
    z = latents(200, seed=seed)
    ensemble = fit(z, nu=nu, gamma=gamma)
    features = Standardiser.fit(z)(z)
    drawn = np.random.default_rng(0).choice(np.arange(200), 200, replace=False)  # libsvm heeds the order
    peer = OneClassSVM(kernel="rbf", nu=nu, gamma=ensemble.gamma).fit(features[drawn])
    expected = peer.score_samples(features)
    exact = ensemble.score_samples(z, dtype=torch.float64)
    np.testing.assert_allclose(exact, expected, rtol=1e-6)
    decision = ensemble.decision_function(z, dtype=torch.float64)
    np.testing.assert_allclose(decision, peer.decision_function(features), atol=1e-6 * np.abs(expected).max())
    fast = ensemble.score_samples(z)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, expected, rtol=1e-5, atol=1e-6)


def test_mean_over_members_equals_one_kernel_sum():
    z = latents()
    ensemble = fit(z, n_models=3, n_samples=150)
    rng = np.random.default_rng(0)
    samples = [z[rng.choice(np.arange(len(z)), 150, replace=False)] for _ in range(3)]
    scale = Standardiser.fit(np.concatenate(samples))
    members = [OneClassSVM(nu=0.1, gamma=ensemble.gamma).fit(scale(sample)) for sample in samples]
    expected = np.mean([member.score_samples(scale(z)) for member in members], axis=0)
    np.testing.assert_allclose(ensemble.score_samples(z), expected, rtol=1e-4, atol=1e-5)
    assert ensemble.offset_ == pytest.approx(np.mean([member.offset_[0] for member in members]))


def test_sign_law_and_nu():
    z = latents(2000)
    ensemble = fit(z, nu=0.1)
    decision = ensemble.decision_function(z)
    np.testing.assert_allclose(decision, ensemble.score_samples(z) - ensemble.offset_, atol=1e-5)
    assert (decision < -1e-3).mean() <= 0.1 + 0.01
    assert decision[np.linalg.norm(z - z.mean(0), axis=1).argmin()] > 0
    assert (ensemble.decision_function(z + 100.0) < 0).all()


def test_scale_and_offset_of_features_do_not_matter():
    z = latents()
    other = z * np.linspace(0.1, 50, 16).astype(np.float32) + np.arange(16, dtype=np.float32)
    np.testing.assert_allclose(fit(z).score_samples(z), fit(other).score_samples(other), rtol=2e-3, atol=1e-4)


def test_log_score_goes_on_where_the_kernel_underflows():
    z = latents()
    ensemble = fit(z)
    away = ensemble.log_score_samples(z[:1] + np.array([[0.0], [1e3], [1e4]], dtype=np.float32))
    assert np.isfinite(away).all()
    assert away[0] > away[1] > away[2]
    np.testing.assert_allclose(np.exp(ensemble.log_score_samples(z)), ensemble.score_samples(z), rtol=1e-6)


def test_chunks_do_not_change_scores():
    z = latents()
    ensemble = fit(z)
    np.testing.assert_allclose(
        ensemble.score_samples(z, chunk=7), ensemble.score_samples(z), rtol=1e-5, atol=1e-6
    )


def test_kept_rows_alone_are_learnt():
    z = latents()
    keep = np.arange(len(z)) < 300
    z[~keep] += 30.0
    np.testing.assert_array_equal(fit(z, keep=keep).dual_coef, fit(z[keep]).dual_coef)
    assert fit(z, keep=keep).decision_function(z[~keep]).max() < 0
    spoilt = z.copy()
    spoilt[~keep] = np.nan
    np.testing.assert_array_equal(fit(spoilt).support_vectors, fit(z[keep], n_samples=300).support_vectors)


def test_constant_features_are_harmless():
    z = latents()
    z[:, 3] = 5.0
    assert np.isfinite(fit(z).score_samples(z)).all()


def test_unusable_input_is_a_typed_error():
    with pytest.raises(BadDataError):
        fit(latents(10))
    with pytest.raises(BadDataError):
        fit(latents(), keep=np.zeros(600, dtype=bool))
    with pytest.raises(BadDataError):
        fit(latents(), gamma="wide")
