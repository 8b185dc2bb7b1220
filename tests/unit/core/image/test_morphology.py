"""Shifted copies do what scipy's footprints do."""

import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.core.image.morphology import and_across_faces, and_what_touches, fill_slices, without_rim


@pytest.fixture(params=[0.001, 0.05, 0.6, 0.9])
def mask(request):
    return np.random.default_rng(0).random((17, 12, 9)) < request.param


def test_what_touches_are_26_neighbours(mask):
    before = mask.copy()
    assert np.array_equal(and_what_touches(mask), ndimage.binary_dilation(mask, np.ones((3, 3, 3))))
    assert np.array_equal(mask, before)


@pytest.mark.parametrize("axes", [(0, 1), (2, 0), (1,)])
def test_what_touches_within_slices_does_so_along_these_axes(mask, axes):
    footprint = np.ones([3 if axis in axes else 1 for axis in range(3)])
    assert np.array_equal(and_what_touches(mask, axes), ndimage.binary_dilation(mask, footprint))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_filled_one_by_one(mask, axis):
    slices = np.moveaxis(mask, axis, 0)
    expected = np.moveaxis(np.stack([ndimage.binary_fill_holes(part) for part in slices]), 0, axis)
    assert np.array_equal(fill_slices(mask, axis), expected)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_across_faces_are_6_neighbours_so_many_times(mask, rounds):
    assert np.array_equal(and_across_faces(mask, rounds), ndimage.binary_dilation(mask, iterations=rounds))


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_rim_is_what_touches_the_outside_by_a_face(mask, rounds):
    assert np.array_equal(
        without_rim(mask, rounds), ndimage.binary_erosion(mask, iterations=rounds, border_value=1)
    )
