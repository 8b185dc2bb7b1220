"""The common space of several sessions: its grid, and one interpolation that looks only where something is."""

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.imaging.longitudinal import on_grid, resample_inside, space_of
from bids_wmh_uad.imaging.resampling import resample
from bids_wmh_uad.imaging.scans import as_image

SHAPE = (40, 36, 14)


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    data = np.zeros(SHAPE, np.float32)
    data[12:25, 9:22, 4:10] = rng.uniform(0.5, 1, (13, 13, 6))
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[:3, 3] = (-20, -18, -21)
    return as_image(data, affine)


@pytest.fixture
def motion():
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("xyz", (8, -5, 20), degrees=True).as_matrix()
    out[:3, 3] = (2.3, -4.1, 1.7)
    return out


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_only_the_box_of_what_is_there_gives_the_same_image(image, motion, interpolation):
    grid = as_image(np.zeros((44, 44, 44), np.uint8), np.array([[1.0, 0, 0, -22], [0, 1, 0, -22], [0, 0, 1, -22], [0, 0, 0, 1]]))  # fmt: skip
    found = resample_inside(image, grid, motion, interpolation)
    np.testing.assert_allclose(found, resample(image, grid, motion, interpolation=interpolation), atol=1e-6)
    assert found.any()
    far = motion.copy()
    far[0, 3] += 500
    assert not resample_inside(image, grid, far, interpolation).any()
    assert not resample_inside(
        as_image(np.zeros(SHAPE, np.float32), image.affine), grid, motion, interpolation
    ).any()


def test_the_grid_holds_the_brains_as_they_lie_and_hardly_more(image, motion):
    params = ChangeParameters()
    motions = (np.eye(4), motion)
    space = space_of([image, image], motions, params)
    inside = np.argwhere(np.asanyarray(image.dataobj) > 0)
    places = np.concatenate([apply_affine(m @ image.affine, inside) for m in motions])
    voxels = apply_affine(np.linalg.inv(space.grid.affine), places)
    assert voxels.min() >= params.margin_mm
    half = np.linalg.norm([1, 1, 3]) / 2
    room = np.array(space.grid.shape) - 1 - voxels.max(axis=0)
    assert (room >= params.margin_mm).all()
    assert max(room.max(), voxels.min(axis=0).max()) <= params.margin_mm + half + 1
    one, two = (on_grid([image, image], motions, space.grid, n_jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
