"""Patch pairs share their MNI location; batches are a function of seed and step."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from bids_wmh_uad.core.network.sampling import BatchSampler, PairSampler, TrainingSubject
from bids_wmh_uad.errors import BadDataError


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
        members = {*np.unique(np.concatenate(sampler(step))[:, 0, 7, 7].round(3))}
        assert len(members) <= 3
    assert opened == blocks[0] + blocks[1]
    assert BatchSampler(7, open_subject, COORDINATES, batch_size=2, seed=0).members(99) == list(range(7))
