"""Masks and the voxels that touch them, by shifted copies: the same as `scipy.ndimage`'s dilations, which take longer on whole volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


def and_what_touches(mask: Mask) -> Mask:
    """A mask and the voxels that touch it by a face, an edge or a corner (26 neighbours).

    Parameters
    ----------
    mask : (X, Y, Z) bool array
    """
    for axis in range(3):
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
