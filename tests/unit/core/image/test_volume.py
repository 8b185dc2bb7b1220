"""Grids: canonical order and resampling, and the exact way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.core.image.volume import Orientation, Volume, WorkingGrid, check_same_grid
from bids_wmh_uad.errors import GRID_MISMATCH, BadDataError, GridMismatchError


def stored_affine(axes, flips, zooms, tilt=0.0, shape=(4, 5, 6)):
    """Voxel to world of data stored with the given axis order and directions, tilted about z."""
    linear = np.zeros((3, 3))
    for world, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        linear[world, axis] = (-1 if flip else 1) * zooms[axis]
    c, s = np.cos(tilt), np.sin(tilt)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ linear
    affine[:3, 3] = (-30.0, 12.0, 7.5)
    return affine


orientations = st.tuples(
    st.sampled_from(list(itertools.permutations(range(3)))),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


@given(orientations, st.floats(-0.6, 0.6))
def test_orientation_is_found_undone_and_keeps_world_positions(orientation, tilt):
    axes, flips = orientation
    affine = stored_affine(axes, flips, (1.0, 1.5, 3.0), tilt)
    data = np.arange(120).reshape(4, 5, 6)
    found = Orientation.from_affine(affine)
    assert (found.axes, found.flips) == (tuple(axes), tuple(flips))
    np.testing.assert_array_equal(found.backward(found.forward(data)), data)
    canonical = found.affine(data.shape, affine)
    voxel = (3, 1, 2)
    at = np.argwhere(found.forward(data) == data[voxel])[0]
    np.testing.assert_allclose(canonical @ [*at, 1], affine @ [*voxel, 1], atol=1e-9)
    again = Orientation.from_affine(canonical)
    assert (again.axes, again.flips) == ((0, 1, 2), (False, False, False))


@given(orientations)
def test_matching_spacing_is_an_exact_permutation(orientation):
    axes, flips = orientation
    zooms = np.ones(3)
    zooms[axes[2]] = 3.0  # thick slices are left alone
    grid = WorkingGrid.from_affine((4, 5, 6), stored_affine(axes, flips, zooms))
    data = np.random.default_rng(0).normal(size=(4, 5, 6))
    assert grid.steps == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(grid.backward(grid.forward(data)), data)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("zoom", [0.5, 0.86, 1.4])
def test_linear_images_are_resampled_exactly_inside(axes, zoom):
    """World coordinates are linear in voxels: interpolation must return them at every inner voxel."""
    shape = (24, 26, 28)
    affine = stored_affine(axes, (True, False, True), (zoom, zoom, zoom))
    grid = WorkingGrid.from_affine(shape, affine)
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    expected = np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], np.indices(grid.shape))
    expected += grid.affine[:3, 3, None, None, None]
    inner = (slice(6, -6), slice(6, -6), slice(6, -6))
    for component in range(3):
        moved = grid.forward(world[component])
        np.testing.assert_allclose(moved[inner], expected[component][inner], atol=1e-3)
        back = grid.backward(moved)
        core = (slice(11, -11), slice(11, -11), slice(11, -11))
        np.testing.assert_allclose(back[core], world[component][core], atol=2e-3)


@settings(max_examples=30)
@given(st.floats(0.4, 1.6), st.floats(0.4, 1.6), st.floats(0.5, 5.0))
def test_field_of_view_and_mean_are_kept(zx, zy, zz):
    shape = (31, 29, 9)
    affine = np.diag([zx, zy, zz, 1.0])
    grid = WorkingGrid.from_affine(shape, affine)
    corners = (np.array([-0.5, -0.5, -0.5]), np.array(grid.shape) - 0.5)
    first, last = (grid.affine[:3, :3] @ c + grid.affine[:3, 3] for c in corners)
    np.testing.assert_allclose(first, affine[:3, :3] @ np.full(3, -0.5), atol=1e-9)
    np.testing.assert_allclose(last, affine[:3, :3] @ (np.array(shape) - 0.5), atol=1e-9)
    sizes = np.abs(np.diag(grid.affine))[:3]
    assert (np.abs(sizes[:2] - 1.0) < 0.1).all()
    assert sizes[2] < 1.2 or sizes[2] == pytest.approx(zz)
    constant = np.full(shape, 3.0, dtype=np.float32)
    np.testing.assert_allclose(grid.backward(grid.forward(constant)), constant, rtol=1e-5)


def test_masks_keep_type_values_and_volume():
    shape = (60, 60, 10)
    affine = np.diag([0.7, 0.7, 3.0, 1.0])
    grid = WorkingGrid.from_affine(shape, affine)
    x, y, _ = np.indices(shape)
    disc = (((x - 30) ** 2 + (y - 28) ** 2) < 20**2).astype(np.uint8)
    forward = grid.forward(disc, 0)
    assert forward.dtype == np.uint8
    assert set(np.unique(forward)) == {0, 1}
    back = grid.backward(forward, 0)
    assert 2 * (back & disc).sum() / (back.sum() + disc.sum()) > 0.95


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0.0, 1.0]), 20)[:, None, None] * np.ones((40, 40, 2))
    grid = WorkingGrid.from_affine(stripes.shape, np.diag([0.4, 0.4, 3.0, 1.0]))
    assert grid.forward(stripes)[4:-4].std() < 0.1  # plain linear sampling gives about 0.3


def test_grids_are_compared():
    one = Volume(np.zeros((3, 4, 5)), np.eye(4))
    check_same_grid(one, Volume(np.ones((3, 4, 5)), np.eye(4) + 1e-6))
    moved = np.eye(4)
    moved[0, 3] = 0.01
    for other in (Volume(np.zeros((3, 4, 6)), np.eye(4)), Volume(np.zeros((3, 4, 5)), moved)):
        with pytest.raises(GridMismatchError) as caught:
            check_same_grid(one, other, ("a.nii", "b.nii"))
        assert str(caught.value).startswith(
            GRID_MISMATCH.split("{detail}")[0].format(first="a.nii", second="b.nii")
        )


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3)])
def test_unusable_affines_are_refused(affine):
    with pytest.raises(BadDataError):
        Volume(np.zeros((2, 2, 2)), affine)


def test_wrong_shape_is_refused():
    grid = WorkingGrid.from_affine((4, 5, 6), np.eye(4))
    with pytest.raises(GridMismatchError):
        grid.forward(np.zeros((4, 5, 7)))
