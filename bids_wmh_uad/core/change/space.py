"""A common space of several sessions that favours none: motions, their mean, how far sizes differ, and the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

DECIMALS = 6
"""Number of decimals of a motion's matrix, as of every transform that is written: a nanometre."""


def rotation_part(linear: NDArray[Any]) -> Matrix:
    """The rotation nearest to a linear map (its polar decomposition; Higham, SIAM J Sci Stat Comput 1986).

    Parameters
    ----------
    linear : (3, 3) array
        With a positive determinant.

    Returns
    -------
    (3, 3) float64 array
    """
    left, _, right = np.linalg.svd(np.asarray(linear, dtype=np.float64))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return np.asarray(left @ sign @ right)


def rigid_part(affine: NDArray[Any], centre: NDArray[Any]) -> Matrix:
    """The rigid motion nearest to an affine, which takes one point where the affine does.

    Parameters
    ----------
    affine : (4, 4) array
    centre : (3,) array
        The point: the brain's centre.

    Returns
    -------
    (4, 4) float64 array
    """
    return _motion(rotation_part(affine[:3, :3]), centre, affine[:3, :3] @ centre + affine[:3, 3])


def mean_motion(motions: Sequence[NDArray[Any]], centre: NDArray[Any], *, rigid: bool = True) -> Matrix:
    """The mean of motions, whatever their order: the projected mean of the rotations, the mean way of one point.

    Parameters
    ----------
    motions : sequence of (4, 4) array
    centre : (3,) array
        The point, mm.
    rigid : bool
        They are; if not, the mean has the geometric mean of their stretches as well (log-Euclidean: Arsigny et al., Magnetic Resonance in Medicine 2006).

    Returns
    -------
    (4, 4) float64 array, rounded to `DECIMALS`.

    Notes
    -----
    The chordal mean (Moakher, SIAM J Matrix Anal Appl 2002); for the small motions here it is the geodesic one.
    """
    stack = np.stack([np.asarray(motion, dtype=np.float64) for motion in motions])
    total = in_any_order(stack)
    rotation = rotation_part(total[:3, :3])
    moved = in_any_order(np.stack([motion[:3, :3] @ centre + motion[:3, 3] for motion in stack]))
    linear = rotation if rigid else rotation @ _mean_stretch(stack[:, :3, :3])
    return _motion(linear, centre, moved).round(DECIMALS)


def _mean_stretch(linear: Matrix) -> Matrix:
    """The geometric mean of the stretches that linear maps (n, 3, 3) do before they turn."""
    values, axes = np.linalg.eigh(np.swapaxes(linear, 1, 2) @ linear)
    logs = (axes * (np.log(values) / 2)[:, None, :]) @ np.swapaxes(axes, 1, 2)
    mean, directions = np.linalg.eigh(in_any_order(logs))
    return np.asarray((directions * np.exp(mean)) @ directions.T)


def size_difference(first: NDArray[Any], second: NDArray[Any]) -> float:
    """How far the sizes of two heads differ: the largest stretch, along any direction, of one against the other.

    Parameters
    ----------
    first, second : (4, 4) array
        Affine motions that take both to the same place.

    Returns
    -------
    float
        As a share, 0 for the same size; the same for exchanged heads.
    """
    stretch = np.linalg.svd(np.linalg.solve(first[:3, :3], second[:3, :3]), compute_uv=False)
    return float(np.expm1(np.abs(np.log(stretch)).max()))


def in_any_order(stack: NDArray[Any]) -> NDArray[np.float64]:
    """Mean along the first axis, the same bit for bit in any order: the addends are sorted first.

    Parameters
    ----------
    stack : (n, ...) array

    Returns
    -------
    (...) float64 array
    """
    return np.asarray(np.sort(stack, axis=0).mean(axis=0, dtype=np.float64))


def _motion(linear: NDArray[Any], centre: NDArray[Any], target: NDArray[Any]) -> Matrix:
    """The motion with a linear part that takes a point to another."""
    motion = np.eye(4)
    motion[:3, :3] = linear
    motion[:3, 3] = np.asarray(target) - linear @ np.asarray(centre)
    return motion


def common_grid(
    places: Sequence[NDArray[Any]], spacing: float, margin: float
) -> tuple[tuple[int, int, int], Matrix]:
    """The grid of the common space, along its axes, that holds all brains.

    Parameters
    ----------
    places : sequence of (n, 3) array
        Of each brain, in the common space, mm.
    spacing : float
        Voxel edge, mm; centres lie at multiples of it.
    margin : float
        Around them, mm.

    Returns
    -------
    shape : three ints
    affine : (4, 4) float64 array
        Voxel to common space, mm.
    """
    low = np.floor((np.min([brain.min(axis=0) for brain in places], axis=0) - margin) / spacing)
    high = np.ceil((np.max([brain.max(axis=0) for brain in places], axis=0) + margin) / spacing)
    grid = np.diag([spacing, spacing, spacing, 1.0])
    grid[:3, 3] = low * spacing
    x, y, z = (high - low + 1).astype(int).tolist()
    return (x, y, z), grid
