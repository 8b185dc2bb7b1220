"""The common space and the intensities of several sessions: nobody is privileged."""

from itertools import product

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from bids_wmh_uad.core.change.intensity import match_all
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.space import (
    common_grid,
    in_any_order,
    mean_motion,
    rigid_part,
    size_difference,
)
from bids_wmh_uad.errors import BadDataError

PARAMETERS = ChangeParameters()
SHAPE = (60, 60, 48)


def turn(degrees, shift):
    from scipy.spatial.transform import Rotation

    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    motion[:3, 3] = shift
    return motion


def test_the_rigid_part_of_a_stretched_motion_is_the_motion_and_keeps_the_centre():
    motion, centre = turn((5, -8, 3), (4, 2, -7)), np.array([3.0, -20, 12])
    affine = motion @ np.diag([1.1, 1.1, 1.1, 1])
    rigid = rigid_part(affine, centre)
    np.testing.assert_allclose(rigid[:3, :3], motion[:3, :3], atol=1e-12)
    np.testing.assert_allclose(rigid @ [*centre, 1], affine @ [*centre, 1], atol=1e-9)


def test_the_mean_motion_is_halfway_and_in_any_order_the_same():
    one, other, third = turn((6, 0, 0), (2, 0, 0)), turn((-2, 0, 0), (0, 4, 0)), turn((0, 3, 1), (0, 0, 1))
    half = mean_motion([one, other], np.zeros(3))
    np.testing.assert_allclose(half, turn((2, 0, 0), (1, 2, 0)), atol=1e-6)
    np.testing.assert_array_equal(
        mean_motion([one, other, third], np.ones(3)), mean_motion([third, one, other], np.ones(3))
    )


def test_the_mean_of_stretched_motions_has_the_geometric_mean_of_the_sizes():
    centre, (first, second) = (
        np.array([10.0, -5.0, 3.0]),
        (np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([1.04, 1.0, 0.98, 1.0])),
    )
    second[:3, 3] = (4.0, 0.0, -2.0)
    mean = mean_motion([first, second], centre, rigid=False)
    assert np.array_equal(mean, mean_motion([second, first], centre, rigid=False))
    assert np.diag(mean) == pytest.approx([np.sqrt(1.04), 1.0, np.sqrt(0.98), 1.0], abs=1e-6)
    assert size_difference(first, second) == pytest.approx(0.04)
    assert size_difference(second, first) == pytest.approx(0.04)
    halfway = [np.linalg.inv(mean) @ motion for motion in (first, second)]
    assert np.prod([np.linalg.det(motion) for motion in halfway]) == pytest.approx(1, abs=1e-5)


def test_a_mean_in_any_order_is_the_same_bit_for_bit():
    stack = np.random.default_rng(0).normal(size=(7, 1000)) * 10.0 ** np.arange(7)[:, None]
    np.testing.assert_array_equal(in_any_order(stack), in_any_order(stack[[3, 1, 6, 0, 2, 5, 4]]))


def test_the_common_grid_holds_every_brain():
    straight, turned = (
        np.array([*product(*zip(low, high, strict=True))])
        for low, high in (((-1, -1, -1), (19, 19, 19)), ((0, 0, 0), (30, 30, 8)))
    )
    shape, affine = common_grid([straight, apply_affine(turn((0, 0, 45), (0, 0, 0)), turned)], 1.0, 2.0)
    inverse = np.linalg.inv(affine)
    for corner in ((-1, -1, -1), (19, 19, 19), (0, 42.4, 0), (-21, 21, 8)):
        inside = (inverse @ [*corner, 1])[:3]
        assert (inside >= 0).all() and (inside <= np.array(shape) - 1).all()


def sessions(rng):
    """Three sessions of one brain with their own gain, offset, bias field and lesion contrast."""
    grid = np.indices(SHAPE)
    distance = np.linalg.norm(grid.T - np.array(SHAPE) / 2, axis=-1).T
    mask = distance < 27
    lesion = np.linalg.norm(grid.T - [30, 22, 24], axis=-1).T < 5
    truth = np.where(distance < 20, 1.0, 1.3)
    flair, t1w = [], []
    for gain, contrast, direction in ((1.0, 0.5, 0), (1.2, 0.7, 1), (0.9, 0.6, 2)):
        field = np.exp(0.1 * (grid[direction] / SHAPE[direction] - 0.5))
        noise = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.6) * 0.05
        flair.append(gain * (field * (truth + contrast * lesion) + noise) + 0.05)
        t1w.append(gain * field * (2 - truth) + noise)
    return (
        *(np.stack(images).astype(np.float32) for images in (flair, t1w)),
        mask,
        np.stack([lesion] * 3).astype(np.int32),
    )


def test_matched_sessions_agree_in_normal_tissue_and_in_lesions():
    flair, t1w, mask, lesions = sessions(np.random.default_rng(1))
    found = match_all(flair, t1w, mask, lesions, PARAMETERS)
    inner = ndimage.binary_erosion(mask, iterations=3)
    for before, after in zip((flair, t1w), found, strict=True):
        assert after[:, inner].std(axis=0).mean() < 0.4 * before[:, inner].std(axis=0).mean()
    core = ndimage.binary_erosion(lesions[0] > 0)
    levels = [np.median(image[core]) for image in found[0]]
    assert np.ptp(levels) < 0.03
    assert np.ptp([np.median(image[core]) for image in flair]) > 0.2


def test_exchanged_sessions_are_matched_alike_bit_for_bit():
    flair, t1w, mask, lesions = sessions(np.random.default_rng(2))
    order = [2, 0, 1]
    found = match_all(flair, t1w, mask, lesions, PARAMETERS)
    other = match_all(flair[order], t1w[order], mask, lesions[order], PARAMETERS)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one[order], two)


def test_without_a_common_brain_nothing_can_be_matched():
    flair, t1w, mask, lesions = sessions(np.random.default_rng(3))
    with pytest.raises(BadDataError, match="common to all sessions"):
        match_all(flair, t1w, np.zeros_like(mask), lesions, PARAMETERS)
