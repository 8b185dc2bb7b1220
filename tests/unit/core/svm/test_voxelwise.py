"""One model per voxel is scikit-learn's model of that voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import OneClassSVM as Libsvm

from bids_wmh_uad.core.svm.paradigms import Standardiser
from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM
from bids_wmh_uad.core.svm.voxelwise_fit import MODELS_PER_PART, fit_voxelwise, leave_one_out
from bids_wmh_uad.errors import BadDataError, GridMismatchError, LatentsError

MASK = np.random.default_rng(3).random((6, 7, 5)) < 0.5
AFFINE = np.array([[2.0, 0, 0, -5], [0, 2, 0, -6], [0, 0, 2, 1], [0, 0, 0, 1]])
COUNT = int(MASK.sum())


@pytest.fixture(scope="module")
def cohort():
    """Latents of 30 subjects: (30, V, 16)."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(1, COUNT, 16))
    return (common + rng.normal(size=(30, COUNT, 16)) @ np.diag(0.8 ** np.arange(16))).astype(np.float32)


@pytest.fixture(scope="module", params=[0.03, 0.1, 0.6])
def fitted(request, cohort):
    return request.param, fit_voxelwise(cohort, MASK, AFFINE, nu=request.param)


def standardiser(model: VoxelwiseOneClassSVM) -> Standardiser:
    return Standardiser(model.centre.double().numpy(), model.scale.double().numpy())


def test_every_voxel_is_libsvms_model(fitted, cohort):
    nu, model = fitted
    new = torch.from_numpy(np.random.default_rng(1).normal(size=(COUNT, 16)).astype(np.float32))
    decision = model.on().decision_function(new, torch.arange(COUNT)).numpy()
    log_score = model.on().log_score_samples(new, torch.arange(COUNT)).numpy()
    standardise = standardiser(model)
    for voxel in range(0, COUNT, 7):
        peer = Libsvm(nu=nu, tol=1e-10).fit(standardise(cohort[:, voxel]).astype(float))
        sample = standardise(new[voxel : voxel + 1].numpy()).astype(float)
        assert decision[voxel] == pytest.approx(peer.decision_function(sample)[0], abs=2e-4)
        assert np.exp(log_score[voxel]) == pytest.approx(peer.score_samples(sample)[0], abs=2e-4)


def test_rows_without_a_model_are_nan_and_order_does_not_matter(fitted):
    _, model = fitted
    rng = np.random.default_rng(2)
    voxels = torch.from_numpy(rng.integers(-1, COUNT, size=5000))
    latents = torch.from_numpy(rng.normal(size=(5000, 16)).astype(np.float32))
    operator = model.on()
    scores = operator.log_score_samples(latents, voxels)
    assert torch.equal(scores.isnan(), voxels < 0)
    order = torch.from_numpy(rng.permutation(5000))
    again = operator.log_score_samples(latents[order], voxels[order])
    torch.testing.assert_close(again, scores[order], equal_nan=True)
    assert torch.isfinite(operator.log_score_samples(latents[:9] + 1e4, voxels[:9].clamp(min=0))).all()


def test_locate(fitted):
    _, model = fitted
    coordinates = np.argwhere(MASK) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    np.testing.assert_array_equal(model.locate(coordinates + 0.9), np.arange(COUNT))
    outside = np.argwhere(~MASK) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    assert (model.locate(np.concatenate([outside, [[1e4, 0, 0], [-1e4, 0, 0]]])) == -1).all()


def test_leave_one_out_is_a_fit_to_the_others(cohort):
    log_score, decision = leave_one_out(cohort, nu=0.2)
    standardise = Standardiser.fit(cohort.reshape(-1, 16))
    for subject in (0, 17):
        for voxel in range(0, COUNT, 31):
            others = standardise(np.delete(cohort[:, voxel], subject, axis=0)).astype(float)
            peer = Libsvm(nu=0.2, tol=1e-10).fit(others)
            own = standardise(cohort[subject, voxel][None]).astype(float)
            assert decision[subject, voxel] == pytest.approx(peer.decision_function(own)[0], abs=1e-3)
            assert np.exp(log_score[subject, voxel]) == pytest.approx(peer.score_samples(own)[0], abs=1e-3)


def test_an_outlier_far_away_has_a_finite_log_score(cohort):
    odd = cohort[:9].copy()
    odd[4] += 300.0
    log_score, _ = leave_one_out(odd, nu=0.2)
    assert np.isfinite(log_score).all()
    assert (log_score[4] < log_score[3]).all()


def test_from_a_memory_map_and_with_any_number_of_threads(fitted, cohort, tmp_path):
    nu, model = fitted
    path = tmp_path / "latents.npy"
    np.save(path, cohort)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        again = fit_voxelwise(np.load(path, mmap_mode="r"), MASK, AFFINE, nu=nu)
    finally:
        torch.set_num_threads(before)
    for name, tensor in vars(model).items():
        assert torch.equal(getattr(again, name), tensor)


def test_worker_processes_find_the_same_models_and_fail_with_the_same_errors():
    shape = (20, 20, 21)  # more than two parts' worth
    assert np.prod(shape) > 2 * MODELS_PER_PART
    latents = np.random.default_rng(1).normal(size=(12, np.prod(shape), 3)).astype(np.float32)
    mask = np.ones(shape, dtype=bool)
    here, there = (fit_voxelwise(latents, mask, AFFINE, nu=0.2, n_jobs=jobs) for jobs in (None, 2))
    for name, tensor in vars(here).items():
        assert torch.equal(getattr(there, name), tensor)
    last = latents[:, -1]
    peer = Libsvm(nu=0.2, tol=1e-10).fit(standardiser(here)(last).astype(float))
    vectors = here.support_vectors[here.starts[-2] :] * here.scale + here.centre
    np.testing.assert_allclose(vectors, last[peer.support_], atol=1e-5)
    some = latents[:, :300]
    first, second = (leave_one_out(some, nu=0.2, n_jobs=jobs) for jobs in (None, 2))
    np.testing.assert_array_equal(first, second)
    latents[3, 5000, 1] = np.nan
    with pytest.raises(LatentsError, match=f"1 values at voxels {MODELS_PER_PART}"):
        fit_voxelwise(latents, mask, AFFINE, nu=0.2, n_jobs=2)


def test_constant_latents_are_harmless():
    same = np.full((20, COUNT, 4), 0.25, dtype=np.float32)
    model = fit_voxelwise(same, MASK, AFFINE, nu=0.03)
    decision = model.on().decision_function(torch.from_numpy(same[0]), torch.arange(COUNT))
    np.testing.assert_allclose(decision, 0.0, atol=1e-5)


def test_unusable_latents_are_typed_errors(cohort):
    with pytest.raises(GridMismatchError):
        fit_voxelwise(cohort[:, 1:], MASK, AFFINE, nu=0.1)
    with pytest.raises(BadDataError, match="nu"):
        fit_voxelwise(cohort, MASK, AFFINE, nu=0.0)
    with pytest.raises(LatentsError, match="none"):
        fit_voxelwise(cohort[:0], MASK, AFFINE, nu=0.1)
    broken = cohort.copy()
    broken[2, 9, 3] = np.inf
    with pytest.raises(LatentsError, match="1 values at voxels 0"):
        fit_voxelwise(broken, MASK, AFFINE, nu=0.1)
    with pytest.raises(LatentsError, match="two"):
        leave_one_out(cohort[:1], nu=0.1)
