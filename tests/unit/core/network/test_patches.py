"""Patch extraction against a slow loop; siamese pairs share their MNI location."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.core.network.patches import (
    BatchSampler,
    PairSampler,
    TrainingSubject,
    change_contrast,
    extract_patches,
    network_input,
    squash,
)
from bids_wmh_uad.errors import BadDataError


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


def subjects(count=3):
    """Subjects whose voxel values are their own index and MNI position, at different spacings."""
    made = []
    for index in range(count):
        zoom = 1.0 + 0.5 * index
        shape = tuple(int(n / zoom) for n in (40, 44, 36))
        mni = np.indices(shape) * zoom - np.array([20, 22, 18])[:, None, None, None]
        mni_to_voxel = np.diag([1 / zoom] * 3 + [1.0])
        mni_to_voxel[:3, 3] = np.array([20, 22, 18]) / zoom
        image = np.concatenate([np.full((1, *shape), index), mni]).astype(np.float32)
        made.append(TrainingSubject(image, (mni**2).sum(0) < 15**2, mni_to_voxel))
    return made


COORDINATES = np.argwhere(np.ones((33, 33, 33))) - 16.0


def test_pairs_are_of_two_subjects_at_one_location():
    sampler = PairSampler(subjects(), COORDINATES, contrast=0.0, shift=0.0)
    first, second = sampler(300, np.random.default_rng(0))
    assert first.shape == second.shape == (300, 4, 15, 15)
    a, b = first[:, :, 7, 7], second[:, :, 7, 7]
    assert (a[:, 0] != b[:, 0]).all()
    assert set(a[:, 0]) == set(b[:, 0]) == {0.0, 1.0, 2.0}
    largest_step = np.sqrt(3) * (2.0 + 1.5) / 2  # half a voxel of each subject along each axis
    assert np.linalg.norm(a[:, 1:] - b[:, 1:], axis=1).max() <= largest_step
    assert (np.linalg.norm(np.r_[a, b][:, 1:], axis=1) < 15).all()


def test_sampling_follows_the_generator():
    sampler = PairSampler(subjects(), COORDINATES)
    one, two = sampler(50, np.random.default_rng(5)), sampler(50, np.random.default_rng(5))
    other = sampler(50, np.random.default_rng(6))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert (one[0] != other[0]).any()


def test_impossible_sampling_is_a_typed_error():
    with pytest.raises(BadDataError):
        PairSampler(subjects(1), COORDINATES)
    with pytest.raises(BadDataError):
        PairSampler(subjects(2), COORDINATES + 500.0)(10, np.random.default_rng(0))


def test_shares_are_the_rows_of_the_whole_batch():
    sampler = PairSampler(subjects(), COORDINATES)
    whole = sampler(60, np.random.default_rng(5))
    shares = [sampler(60, np.random.default_rng(5), slice(start, start + 20)) for start in (0, 20, 40)]
    for branch in (0, 1):
        np.testing.assert_array_equal(np.concatenate([share[branch] for share in shares]), whole[branch])


def test_a_step_is_the_same_batch_whenever_it_is_drawn():
    made = subjects(7)

    def sampler(seed=1):
        return BatchSampler(
            7, made.__getitem__, COORDINATES, batch_size=20, seed=seed, block_subjects=3, block_steps=2
        )

    straight, jumping = sampler(), sampler()
    batches = [straight(step) for step in range(9)]
    for step in (8, 2, 5, 5, 0):
        for branch in (0, 1):
            np.testing.assert_array_equal(jumping(step)[branch], batches[step][branch])
    assert (batches[0][0] != batches[1][0]).any()
    assert (sampler(seed=2)(0)[0] != batches[0][0]).any()


def test_blocks_bound_what_is_open_and_take_every_subject_once():
    made, opened = subjects(7), []

    def open_subject(index):
        opened.append(index)
        return made[index]

    sampler = BatchSampler(
        7, open_subject, COORDINATES, batch_size=20, seed=0, block_subjects=3, block_steps=4
    )
    blocks = [sampler.members(4 * block) for block in range(6)]
    assert all(2 <= len(block) <= 3 for block in blocks)
    assert sorted(chain(*blocks[:3])) == sorted(chain(*blocks[3:])) == list(range(7))
    assert blocks[:3] != blocks[3:]
    for step in range(8):
        owners = {*np.unique(np.concatenate(sampler(step))[:, 0, 7, 7].round(3))}
        assert len(owners) <= 3
    assert opened == blocks[0] + blocks[1]
    assert BatchSampler(7, open_subject, COORDINATES, batch_size=2, seed=0).members(99) == list(range(7))
