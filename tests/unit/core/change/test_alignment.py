"""Sessions aligned with their mean: known motions come back, whatever the scanner's gain and the lesions that came."""

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_wmh_uad.core.change.alignment import align
from bids_wmh_uad.errors import BadDataError

SHAPE, SPACING = (68, 80, 64), 2.0
AFFINE = np.diag([SPACING, SPACING, SPACING, 1.0])
AFFINE[:3, 3] = (-70, -85, -60)
CENTRE = apply_affine(AFFINE, np.array(SHAPE) / 2)


def head(motion, *, lesion=False, gain=1.0, offset=0.0, seed=0):
    """A folded ellipsoid of one brightness inside, moved, on the grid."""
    world = apply_affine(AFFINE, np.indices(SHAPE).transpose(1, 2, 3, 0))
    places = apply_affine(np.linalg.inv(motion), world) - CENTRE
    inside = ((places / (48, 62, 44)) ** 2).sum(axis=-1)
    folds = 0.2 * np.sin(places / 6.0 + 1).prod(axis=-1)
    image = np.where(inside < 0.5, 1.0, 1.2) + folds
    if lesion:
        image = image + (np.linalg.norm(places - (25, 15, 5), axis=-1) < 12)
    noise = 0.03 * np.random.default_rng(seed).normal(size=SHAPE)
    brain = ndimage.gaussian_filter((inside < 1) * (gain * image + offset), 0.5) + (inside < 1) * noise
    return brain.astype(np.float32)


def about_the_centre(linear, shift):
    motion = np.eye(4)
    motion[:3, :3] = linear
    motion[:3, 3] = CENTRE + shift - linear @ CENTRE
    return motion


def found_in(mean, image, **how):
    return align(mean, image, (mean > 0) & (image > 0), AFFINE, **how)


def distance(one, other):
    """How far apart two motions put the brain's outermost points, mm."""
    places = CENTRE + 50 * np.concatenate([np.eye(3), -np.eye(3)])
    return float(np.linalg.norm(apply_affine(one, places) - apply_affine(other, places), axis=1).max())


@pytest.mark.parametrize("degrees", [0.5, 4.0, 12.0])
def test_a_rigid_motion_comes_back_in_spite_of_a_lesion_and_another_gain(degrees):
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.5, 0.7, -0.5])).as_matrix()
    moved = about_the_centre(turn, degrees * np.array([0.8, -0.5, 0.6]))
    found = found_in(
        head(np.eye(4)), head(moved, lesion=True, gain=1.2, offset=-0.1, seed=1), rigid=True, coarse=True
    )
    assert distance(found, np.linalg.inv(moved)) < 0.3
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)


def test_an_affine_finds_another_size_and_a_rigid_motion_does_not():
    larger = about_the_centre(np.diag([1.02, 1.0, 0.99]), np.array([0.5, 0.0, 0.0]))
    images = head(np.eye(4)), head(larger, seed=1)
    assert distance(found_in(*images, rigid=False, coarse=False), np.linalg.inv(larger)) < 0.4
    assert np.linalg.det(found_in(*images, rigid=True, coarse=False)) == pytest.approx(1)


def test_another_brain_mask_is_no_other_size():
    """One mask lacks 6 mm all around: the brightness inside says that nothing moved."""
    mean, image = head(np.eye(4)), head(np.eye(4), seed=1)
    smaller = np.where(ndimage.binary_erosion(image > 0.3, iterations=3), image, 0).astype(np.float32)
    assert distance(found_in(mean, smaller, rigid=False, coarse=False), np.eye(4)) < 0.2


def test_what_is_aligned_stays():
    images = head(np.eye(4)), head(np.eye(4), lesion=True, seed=1)
    assert distance(found_in(*images, rigid=True, coarse=False), np.eye(4)) < 0.05


def test_heads_that_hardly_overlap_are_an_error():
    image = head(np.eye(4))
    with pytest.raises(BadDataError, match="brain common to all sessions"):
        align(image, image, image > 10, AFFINE, rigid=True, coarse=True)
