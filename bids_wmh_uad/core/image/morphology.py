"""Masks, the voxels that touch them, and holes: the same as `scipy.ndimage`'s dilations and fills, which take longer on whole volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


def and_what_touches(mask: Mask, axes: Sequence[int] = (0, 1, 2)) -> Mask:
    """A mask and the voxels that touch it by a face, an edge or a corner (26 neighbours; 8 within slices along two axes).

    Parameters
    ----------
    mask : (X, Y, Z) bool array
    axes : sequence of int
        Along which to look.
    """
    for axis in axes:
        mask = _along(mask, axis)
    return mask


def and_across_faces(mask: Mask, rounds: int = 1) -> Mask:
    """A mask and the voxels that share a face with it (6 neighbours), and so on for more rounds.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
    rounds : int
        1 or more.
    """
    for _ in range(rounds):
        mask = np.logical_or.reduce([_along(mask, axis) for axis in range(3)])
    return mask


def without_rim(mask: Mask, rounds: int = 1) -> Mask:
    """A mask without the voxels that share a face with what is outside it, and so on for more rounds; beyond the volume is neither.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
    rounds : int
        1 or more.
    """
    return ~and_across_faces(~mask, rounds)


def fill_slices(mask: Mask, axis: int) -> Mask:
    """A mask and what it encloses in each slice across an axis: `scipy.ndimage.binary_fill_holes` of them all at once.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
    axis : int
    """
    within_slices = ndimage.generate_binary_structure(3, 1)
    within_slices[tuple((0, 2) if k == axis else slice(None) for k in range(3))] = False
    outside, count = ndimage.label(~mask, within_slices)
    enclosed = np.ones(count + 1, dtype=bool)
    for other in {0, 1, 2} - {axis}:  # what reaches a slice's border is not enclosed
        for end in (0, -1):
            enclosed[np.take(outside, end, axis=other)] = False
    enclosed[0] = True  # the mask itself
    filled: Mask = enclosed[outside]
    return filled


def _along(mask: Mask, axis: int) -> Mask:
    """A mask and both neighbours along an axis."""
    out = mask.copy()
    here, there = (
        tuple(slice(*ends) if k == axis else slice(None) for k in range(3))
        for ends in ((1, None), (None, -1))
    )
    out[here] |= mask[there]
    out[there] |= mask[here]
    return out
