"""Prepared controls: what is read through the memory map is what was written."""

from __future__ import annotations

import numpy as np
import pytest

from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.network.sampling import PairSampler, TrainingSubject
from bids_wmh_uad.errors import BAD_CONTROL, BadDataError
from bids_wmh_uad.imaging.controls import open_control, save_control


def control(seed=0, shape=(21, 26, 7)):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=bool)
    mask[0:18, 5:26, 1:6] = rng.random((18, 21, 5)) < 0.8
    image = np.where(mask, rng.random((2, *shape)), 0.0).astype(np.float32)
    matrix = np.diag([1.0, 1.0, 0.5, 1.0])
    matrix[:3, 3] = 10, 13, 3
    return image, mask, matrix


@pytest.fixture
def saved(tmp_path):
    image, mask, matrix = control()
    return save_control(tmp_path / "control", image, mask, matrix), image, mask, matrix


def test_patches_of_the_map_are_those_of_the_rounded_image(saved):
    path, image, mask, matrix = saved
    opened = open_control(path)
    assert isinstance(opened.image.base.base, np.memmap) or isinstance(opened.image, np.memmap)
    assert opened.mask.sum() == mask.sum()
    before, after = np.argwhere(mask), np.argwhere(opened.mask)
    rounded = image.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(extract_patches(opened.image, after), extract_patches(rounded, before))
    np.testing.assert_allclose(rounded, image, atol=2.5e-4)
    mni = (np.c_[before, np.ones(len(before))] @ np.linalg.inv(matrix).T)[:, :3]
    voxels = mni @ opened.mni_to_voxel[:3, :3].T + opened.mni_to_voxel[:3, 3]
    np.testing.assert_allclose(voxels, after, atol=1e-9)


def test_no_patch_of_a_saved_control_leaves_its_image(saved):
    opened = open_control(saved[0])
    where = np.argwhere(opened.mask)[:, :2]
    assert where.min() >= 7
    assert (where.max(0) < np.array(opened.image.shape[1:3]) - 7).all()


def test_what_lies_around_the_mask_is_kept(tmp_path):
    """A lesion at the brain's edge is no centre of a patch, but part of its neighbours'."""
    image, mask, matrix = control()
    smaller = mask.copy()
    smaller[:6] = smaller[:, 20:] = False
    opened = open_control(save_control(tmp_path / "control", image, smaller, matrix))
    rounded = image.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(
        extract_patches(opened.image, np.argwhere(opened.mask)),
        extract_patches(rounded, np.argwhere(smaller)),
    )


def test_sampling_does_not_depend_on_the_memory_map(tmp_path):
    mapped, loaded = [], []
    for seed in (1, 2, 3):
        opened = open_control(save_control(tmp_path / str(seed), *control(seed)))
        mapped.append(opened)
        loaded.append(
            TrainingSubject(np.array(opened.image, np.float32), np.array(opened.mask), opened.mni_to_voxel)
        )
    mni = (np.c_[np.argwhere(control()[1]), np.ones(control()[1].sum())] @ np.linalg.inv(control()[2]).T)[
        :, :3
    ]
    pairs = [PairSampler(some, mni)(64, np.random.default_rng(5)) for some in (mapped, loaded)]
    np.testing.assert_array_equal(pairs[0][0], pairs[1][0])
    np.testing.assert_array_equal(pairs[0][1], pairs[1][1])


def test_a_second_writing_replaces_the_first(saved):
    path = saved[0]
    save_control(path, *control(seed=9))
    assert open_control(path).mask.sum() == control(seed=9)[1].sum()
    assert [item.name for item in path.parent.iterdir()] == ["control"]


@pytest.mark.parametrize("name", ["image.npy", "mask.npy", "mni_to_voxel.npy"])
def test_a_damaged_control_is_named(saved, name):
    file = saved[0] / name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BadDataError, match="not a prepared control") as caught:
        open_control(saved[0])
    assert str(caught.value).startswith(BAD_CONTROL.split("{reason}")[0].format(path=saved[0]))
    file.unlink()
    with pytest.raises(BadDataError):
        open_control(saved[0])
