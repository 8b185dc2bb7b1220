"""Fields on a grid of 1 mm: noise, distances, ramps, ellipsoids; and rigid motions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from bids_wmh_uad.phantom.spec import Array, Matrix


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Draw Gaussian random noise of unit variance, smooth at `sigma` voxels: noise on a coarse lattice, interpolated.

    The lattice's few neighbours of a voxel are weighed by a sparse matrix: faster than a dense
    product, and unlike that one the same to the last bit whatever the number of BLAS's threads.
    """
    nodes = [np.arange(-3, n / sigma + 3) for n in shape]
    field = rng.standard_normal([len(x) for x in nodes]).astype(np.float32)
    for axis in reversed(range(len(shape))):  # the largest product comes last, and needs no transposing
        n = shape[axis]
        offset = nodes[axis] - np.arange(n)[:, None] / sigma
        basis = np.where(np.abs(offset) < 4, np.exp(-0.5 * offset**2), 0)
        basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
        front = np.moveaxis(field, axis, 0)
        out = sparse.csr_array(basis.astype(np.float32)) @ front.reshape(len(front), -1)
        field = np.moveaxis(np.asarray(out).reshape(n, *front.shape[1:]), 0, axis)
    return field


def distance(mask: NDArray[np.bool_]) -> Array:
    """Distance in mm to the nearest voxel of `mask`, at 2 mm, interpolated to 1 mm."""
    out = np.asarray(ndimage.distance_transform_edt(~mask[::2, ::2, ::2], sampling=2.0), np.float32)
    for axis, n in enumerate(mask.shape):
        k = np.arange(n)
        above = np.minimum((k + 1) // 2, out.shape[axis] - 1)
        out = (np.take(out, k // 2, axis) + np.take(out, above, axis)) / 2
    return np.asarray(out, np.float32)


def mesh(origin: Matrix, shape: tuple[int, ...]) -> list[Array]:
    """Open grid of the 1 mm voxels' coordinates."""
    axes = [np.arange(n, dtype=np.float32) + np.float32(low) for n, low in zip(shape, origin, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def ellipsoid(grid: Sequence[Array], centre: Sequence[float], radii: Sequence[float]) -> Array:
    """Signed distance, roughly, to an ellipsoid's surface (negative inside)."""
    radius2 = sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True))
    return np.asarray((np.sqrt(radius2) - 1) * min(radii), np.float32)


def ramp(x: Array, start: float, stop: float) -> Array:
    """Rise linearly from 0 at `start` to 1 at `stop` (or fall, where stop < start)."""
    return np.asarray(np.clip((x - np.float32(start)) / np.float32(stop - start), 0, 1), np.float32)


def rigid(rng: np.random.Generator, degrees: float, mm: float) -> Matrix:
    """Draw a rigid motion with bounded angles about, and shifts along, each axis."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-degrees, degrees, 3))):
        turn = np.eye(4)
        i, j = [k for k in range(3) if k != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    matrix[:3, 3] = rng.uniform(-mm, mm, 3)
    return matrix
