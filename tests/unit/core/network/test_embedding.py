"""Dense latents are the latents of the patches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.core.network.autoencoder import ENCODERS, build_autoencoder
from bids_wmh_uad.core.network.dense import DenseEncoder, slices_first
from bids_wmh_uad.core.network.embedding import embed_dense, embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.errors import GridMismatchError


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def model(request):
    """A network of either kind whose BatchNorm statistics are not the initial 0 and 1."""
    network = build_autoencoder(0, encoder=request.param)
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
    assert dense.shape == (mask.sum(), model.latent_size)
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
    norm = next(layer for layer in model.encoder if isinstance(layer, torch.nn.BatchNorm2d))
    statistics = norm.running_mean.clone()
    embed_dense(model, IMAGE, MASKS["corner"])
    assert model.training
    assert torch.equal(norm.running_mean, statistics)
    model.eval()


def test_empty_mask_and_wrong_grid(model):
    assert embed_dense(model, IMAGE, np.zeros(IMAGE.shape[1:], dtype=bool)).shape == (0, model.latent_size)
    with pytest.raises(GridMismatchError):
        embed_dense(model, IMAGE, np.ones((23, 31, 4), dtype=bool))


def reference(model, image, mask):
    return embed_patches(model, extract_patches(image, np.argwhere(mask)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (7, 40, 2), (40, 7, 2), (17, 16, 9), (20, 19, 17)])
def test_any_size_equals_patch_wise(model, shape):
    image = np.random.default_rng(2).random((2, *shape), dtype=np.float32)
    mask = np.ones(shape, dtype=bool)
    np.testing.assert_allclose(embed_dense(model, image, mask), reference(model, image, mask), atol=1e-5)


def test_every_statistic_of_batchnorm_counts(model):
    network = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in (layer for layer in network.encoder if isinstance(layer, torch.nn.BatchNorm2d)):
            for values in (norm.weight, norm.bias, norm.running_mean):
                values.copy_(torch.randn(values.shape, generator=generator))
            norm.running_var.copy_(0.5 + torch.rand(norm.running_var.shape, generator=generator))
    mask = MASKS["scattered"]
    np.testing.assert_allclose(
        embed_dense(network, IMAGE, mask), reference(network, IMAGE, mask), atol=1e-5, rtol=1e-5
    )


def test_mask_on_every_edge(model):
    mask = np.zeros(IMAGE.shape[1:], dtype=bool)
    mask[[0, -1], 15, 2] = mask[11, [0, -1], 2] = mask[11, 15, [0, -1]] = True
    np.testing.assert_allclose(embed_dense(model, IMAGE, mask), reference(model, IMAGE, mask), atol=1e-5)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["everywhere", "scattered"])
def test_same_bytes_for_any_number_of_threads(model, set_threads, name):
    results = []
    for threads in (1, 2, 3, 2):
        set_threads(threads)
        results.append(embed_dense(model, IMAGE, MASKS[name], slices=1).tobytes())
        assert torch.get_num_threads() == threads
    assert len(set(results)) == 1


def test_slabs_are_the_rows_of_the_whole(model):
    mask = MASKS["scattered"]
    whole = np.zeros((*mask.shape, model.latent_size), dtype=np.float32)
    whole[mask] = embed_dense(model, IMAGE, mask)
    encoder = DenseEncoder(model)
    for slab in (slice(0, 2), slice(2, 5), slice(4, 9)):
        rows = encoder(IMAGE, mask, slab).numpy()
        expected = whole[..., slab, :].transpose(2, 0, 1, 3)[slices_first(mask, slab)]
        np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert encoder(IMAGE, np.zeros_like(mask), slice(0, 2)).shape == (0, model.latent_size)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 34), st.integers(1, 34), st.integers(1, 4)),
    share=st.sampled_from([0.01, 0.3, 1.0]),
    slices=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_dense_equals_patch_wise_for_any_mask(model, shape, share, slices, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((2, *shape), dtype=np.float32)
    mask = rng.random(shape) < share
    dense = embed_dense(model, image, mask, slices)
    assert dense.shape == (mask.sum(), model.latent_size)
    np.testing.assert_allclose(dense, reference(model, image, mask), atol=1e-5)


def test_a_failing_item_raises_and_threads_come_back():
    before = torch.get_num_threads()
    assert parallel_map(lambda item: (item, torch.get_num_threads()), range(3), 2) == [(0, 1), (1, 1), (2, 1)]
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda item: 1 // item, [1, 0], 2)
    assert torch.get_num_threads() == before
