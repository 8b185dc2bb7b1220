"""Patch extraction against a slow loop, squashing and changes of contrast."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.core.network.patches import (
    change_contrast,
    extract_patches,
    network_input,
    squash,
)


def slow_patches(image, coords, size, background):
    half = size // 2
    padded = np.pad(image, [(0, 0), (half, half), (half, half), (0, 0)], constant_values=background)
    return np.stack([padded[:, x : x + size, y : y + size, z] for x, y, z in coords])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 15]), st.floats(-1, 1))
def test_patches_equal_the_slow_loop_at_borders_too(seed, size, background):
    rng = np.random.default_rng(seed)
    image = rng.random((2, 9, 11, 3), dtype=np.float32)
    coords = np.argwhere(np.ones(image.shape[1:]))[rng.permutation(297)[:40]]
    cut = extract_patches(image, coords, size, background)
    assert cut.dtype == np.float32
    np.testing.assert_array_equal(cut, slow_patches(image, coords, size, np.float32(background)))


def test_strided_images_are_read_right():
    image = np.random.default_rng(0).random((2, 20, 20, 4), dtype=np.float32)
    view = image[:, ::-1, :, ::2]
    coords = np.array([[0, 0, 0], [10, 19, 1]])
    np.testing.assert_array_equal(
        extract_patches(view, coords), extract_patches(np.ascontiguousarray(view), coords)
    )


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_squash_is_monotone_bounded_and_symmetric(values):
    z = np.sort(np.array(values, dtype=np.float32))[:, None, None]
    inside = np.ones(z.shape, dtype=bool)
    out = squash(z, inside)
    assert ((out > 0) & (out <= 1)).all()
    assert (np.diff(out.ravel()) >= 0).all()
    np.testing.assert_allclose(squash(-z, inside), 1 - out, atol=1e-6)


def test_network_input_is_flair_then_t1w_on_a_zero_background():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1] = True
    image = network_input(np.full((3, 3, 3), 4.0), np.full((3, 3, 3), -4.0), mask)
    assert (image[:, ~mask] == 0).all()
    assert (image[0, mask] > 0.5).all()
    assert (image[1, mask] < 0.5).all()


def test_contrast_changes_keep_background_order_and_range():
    rng = np.random.default_rng(0)
    patches = rng.random((20, 2, 15, 15), dtype=np.float32)
    patches[:, :, :4] = 0.0
    gain, offset = np.exp(0.2 * rng.standard_normal((20, 2))), 0.15 * rng.standard_normal((20, 2))
    moved = change_contrast(patches, gain, offset)
    assert (moved[patches == 0] == 0).all()
    assert ((moved >= 0) & (moved <= 1)).all()
    assert np.abs(moved - patches).max() > 0.02
    for before, after in zip(patches.reshape(40, -1), moved.reshape(40, -1), strict=True):
        assert (np.diff(after[np.argsort(before)]) >= -1e-6).all()
    logit = np.log(patches / (1 - patches), where=patches > 0, out=np.zeros_like(patches))
    expected = 1 / (1 + np.exp(-(gain[..., None, None] * logit + offset[..., None, None])))
    np.testing.assert_allclose(moved[patches > 0], expected[patches > 0], atol=1e-5)
    still = change_contrast(patches, np.ones((20, 2)), np.zeros((20, 2)))
    np.testing.assert_allclose(still, patches, atol=1e-5)
