"""Dense latents are the latents of the patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_wmh_uad.core.autoencoder import build_autoencoder
from bids_wmh_uad.core.embedding import embed_dense, embed_patches
from bids_wmh_uad.core.patches import extract_patches
from bids_wmh_uad.errors import GridMismatchError


@pytest.fixture(scope="module")
def model():
    """A network whose BatchNorm statistics are not the initial 0 and 1."""
    network = build_autoencoder(0)
    with torch.no_grad():
        for _ in range(20):
            network.encode(torch.rand(64, 2, 15, 15))
    return network.eval()


IMAGE = np.random.default_rng(0).random((2, 23, 31, 5), dtype=np.float32)
MASKS = {
    "everywhere": np.ones(IMAGE.shape[1:], dtype=bool),
    "scattered": np.random.default_rng(1).random(IMAGE.shape[1:]) < 0.05,
    "corner": np.indices(IMAGE.shape[1:]).sum(0) == 0,
    "inner": (np.indices(IMAGE.shape[1:]) == np.array([11, 15, 2])[:, None, None, None]).all(0),
}


@pytest.mark.parametrize("name", MASKS)
def test_dense_equals_patch_wise_in_mask_order(model, name):
    mask = MASKS[name]
    expected = embed_patches(model, extract_patches(IMAGE, np.argwhere(mask)))
    dense = embed_dense(model, IMAGE, mask)
    assert dense.shape == (mask.sum(), 16)
    assert expected.std(0).min() > 1e-3 or mask.sum() == 1  # not equal because constant
    np.testing.assert_allclose(dense, expected, atol=1e-5)


def test_streaming_does_not_change_the_result(model):
    whole = embed_dense(model, IMAGE, MASKS["everywhere"], slices=99)
    for slices in (1, 2, 3):
        np.testing.assert_allclose(embed_dense(model, IMAGE, MASKS["everywhere"], slices), whole, atol=1e-6)
    patches = extract_patches(IMAGE, np.argwhere(MASKS["scattered"]))
    np.testing.assert_allclose(embed_patches(model, patches, 7), embed_patches(model, patches), atol=1e-6)


def test_only_the_own_patch_counts(model):
    mask = MASKS["inner"]
    before = embed_dense(model, IMAGE, mask)
    outside, inside = IMAGE.copy(), IMAGE.copy()
    outside[:, 11 + 8] += 1.0
    outside[:, :, :, [0, 1, 3, 4]] += 1.0
    inside[:, 11 + 7, 15, 2] += 1.0
    np.testing.assert_allclose(embed_dense(model, outside, mask), before, atol=1e-6)
    assert np.abs(embed_dense(model, inside, mask) - before).max() > 1e-4


def test_training_mode_comes_back_and_is_not_used(model):
    model.train()
    statistics = model.encoder[2].running_mean.clone()
    embed_dense(model, IMAGE, MASKS["corner"])
    assert model.training
    assert torch.equal(model.encoder[2].running_mean, statistics)
    model.eval()


def test_empty_mask_and_wrong_grid(model):
    assert embed_dense(model, IMAGE, np.zeros(IMAGE.shape[1:], dtype=bool)).shape == (0, 16)
    with pytest.raises(GridMismatchError):
        embed_dense(model, IMAGE, np.ones((23, 31, 4), dtype=bool))
