"""Volumes, grid checks, and the working grid with its way back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.errors import BAD_AFFINE, GRID_MISMATCH, BadDataError, BadImageError, GridMismatchError

Affine = NDArray[np.float64]
Order = Literal[0, 1, 2, 3, 4, 5]
"""Spline order of an interpolation; 0 = nearest neighbour."""

AFFINE_TOLERANCE_MM = 1e-3
"""Two affines are the same grid when no voxel centre moves by more than this, mm."""

SPACING_TOLERANCE = 0.02
"""Relative difference from the working spacing that is left alone (0.98-1.02 mm counts as 1 mm)."""


def voxel_sizes(affine: NDArray[Any]) -> NDArray[np.float64]:
    """Edge lengths of a voxel: the column norms of the affine.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel to world (mm).

    Returns
    -------
    (3,) float64 array, mm.
    """
    sizes: NDArray[np.float64] = np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))
    return sizes


@dataclass(frozen=True, eq=False)
class Volume:
    """One 3D image on its grid.

    Parameters
    ----------
    data : (X, Y, Z) array
        Voxel values, in any numeric type.
    affine : (4, 4) array
        Voxel to world (mm).

    Raises
    ------
    BadDataError
        When `data` is not 3D or `affine` not 4x4 and invertible.
    """

    data: NDArray[Any]
    affine: Affine

    def __post_init__(self) -> None:
        if self.data.ndim != 3 or np.shape(self.affine) != (4, 4):
            raise BadDataError(BAD_AFFINE.format(path="volume", limit="any amount"))
        if not np.isfinite(self.affine).all() or abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            raise BadImageError(BAD_AFFINE.format(path="volume", limit="any amount"))

    @property
    def zooms(self) -> NDArray[np.float64]:
        """Voxel sizes, mm."""
        return voxel_sizes(self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        x, y, z = self.data.shape
        return x, y, z


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """Smallest box that holds a mask and so many voxels around it; the whole volume where the mask is empty."""
    axes = range(mask.ndim)
    sides = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    if not sides[0].size:
        return tuple(slice(0, n) for n in mask.shape)
    ends = zip(sides, mask.shape, strict=True)
    return tuple(slice(max(int(side[0]) - margin, 0), min(int(side[-1]) + 1 + margin, n)) for side, n in ends)


def cut_affine(affine: NDArray[Any], box: tuple[slice, ...]) -> NDArray[np.float64]:
    """The affine of a box of a grid."""
    corner = np.eye(4)
    corner[:3, 3] = [side.start for side in box]
    return np.asarray(affine @ corner)


def check_same_grid(first: Volume, second: Volume, names: tuple[str, str] = ("first", "second")) -> None:
    """Require that two volumes share shape and affine, but for rounding.

    Parameters
    ----------
    first, second : Volume
    names : pair of str
        What to call them in the message (file names).

    Raises
    ------
    GridMismatchError
        With `errors.GRID_MISMATCH`, when shapes differ or a corner moves by more than 1e-3 mm.
    """
    if first.shape != second.shape or not grid_distance(first, second)[0] <= AFFINE_TOLERANCE_MM:
        raise GridMismatchError(
            GRID_MISMATCH.format(first=names[0], second=names[1], detail=grid_difference(first, second))
        )


def grid_distance(first: Volume, second: Volume) -> tuple[float, float]:
    """How far apart two affines put the voxels of one grid, at most.

    An affine moves no voxel by more than the corners.

    Parameters
    ----------
    first, second : Volume
        Of the same shape.

    Returns
    -------
    millimetres : float
    voxels : float
        Along one of the first's axes.
    """
    corners = np.array([*product(*((0, size - 1) for size in first.shape))], dtype=np.float64)
    change = second.affine - first.affine
    moved = corners @ change[:3, :3].T + change[:3, 3]
    in_voxels = moved @ np.linalg.inv(first.affine[:3, :3]).T
    return float(np.linalg.norm(moved, axis=1).max()), float(np.abs(in_voxels).max())


def grid_difference(first: Volume, second: Volume) -> str:
    """In words, for messages."""
    if first.shape != second.shape:
        return f"shapes {first.shape} and {second.shape}"
    millimetres, voxels = grid_distance(first, second)
    return f"affines differ by up to {millimetres:.3g} mm, {voxels:.2g} voxels"


@dataclass(frozen=True)
class Orientation:
    """How stored axes map to the closest right-anterior-superior axes.

    Parameters
    ----------
    axes : (int, int, int)
        ``axes[w]`` is the stored axis that lies closest to world axis ``w``.
    flips : (bool, bool, bool)
        Whether that axis runs against the world axis.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def from_affine(cls, affine: NDArray[Any]) -> Orientation:
        """Find the closest canonical orientation of an affine.

        The stored axes are assigned to world axes by the permutation with the
        largest sum of absolute direction cosines (six candidates, so the answer
        is the optimum and ties go to the first).

        Parameters
        ----------
        affine : (4, 4) array
            Voxel to world (mm).
        """
        cosines = np.asarray(affine, dtype=np.float64)[:3, :3] / voxel_sizes(affine)
        candidates = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        axes = max(candidates, key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3)))
        flips = tuple(bool(cosines[w, axes[w]] < 0) for w in range(3))
        return cls(axes, (flips[0], flips[1], flips[2]))

    def forward(self, data: NDArray[Any]) -> NDArray[Any]:
        """Reorder and flip (X, Y, Z) stored data to canonical RAS+ order (a view)."""
        return np.flip(data.transpose(self.axes), tuple(w for w in range(3) if self.flips[w]))

    def backward(self, data: NDArray[Any]) -> NDArray[Any]:
        """Undo `forward` exactly (a view)."""
        flipped = np.flip(data, tuple(w for w in range(3) if self.flips[w]))
        inverse = np.argsort(self.axes)
        return flipped.transpose((int(inverse[0]), int(inverse[1]), int(inverse[2])))

    def affine(self, shape: tuple[int, int, int], affine: NDArray[Any]) -> Affine:
        """Compute the affine of the canonical grid.

        Parameters
        ----------
        shape : (int, int, int)
            Stored shape.
        affine : (4, 4) array
            Stored voxel to world (mm).

        Returns
        -------
        (4, 4) float64 array: canonical voxel to world (mm).
        """
        to_stored = np.zeros((4, 4))
        to_stored[3, 3] = 1.0
        for world, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            to_stored[axis, world] = -1.0 if flip else 1.0
            to_stored[axis, 3] = shape[axis] - 1 if flip else 0
        return np.asarray(affine, dtype=np.float64) @ to_stored


@dataclass(frozen=True)
class WorkingGrid:
    """The grid patches are cut on, and the way there and back.

    Canonical (closest RAS+) axis order; axes 0 and 1 at `spacing` mm; axis 2 as
    stored unless it is finer than `spacing`, when it is resampled too. The field
    of view is kept: the outer voxel edges of both grids coincide (up to the
    rounding of the voxel count). Where nothing needs resampling both ways are
    exact permutations.

    Parameters
    ----------
    orientation : Orientation
    stored_shape, shape : (int, int, int)
        Grid of the input file, and working grid.
    steps : (float, float, float)
        Canonical stored voxels per working voxel along each axis (1 = left alone).
    affine : (4, 4) array
        Working voxel to world (mm).
    """

    orientation: Orientation
    stored_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    steps: tuple[float, float, float]
    affine: Affine

    @classmethod
    def from_affine(
        cls, shape: tuple[int, int, int], affine: NDArray[Any], spacing: float = 1.0
    ) -> WorkingGrid:
        """Plan the working grid of an image.

        Parameters
        ----------
        shape : (int, int, int)
            Stored shape.
        affine : (4, 4) array
            Stored voxel to world (mm).
        spacing : float
            In-plane voxel size wanted, mm.
        """
        orientation = Orientation.from_affine(affine)
        canonical = orientation.affine(shape, affine)
        sizes = voxel_sizes(canonical)
        counts, steps = [], []
        for axis in range(3):
            count = shape[orientation.axes[axis]]
            alike = abs(sizes[axis] / spacing - 1.0) <= SPACING_TOLERANCE
            left_alone = alike or count == 1 or (axis == 2 and sizes[axis] > spacing)
            new = count if left_alone else max(1, round(count * sizes[axis] / spacing))
            counts.append(new)
            steps.append(1.0 if left_alone else count / new)
        step = np.asarray(steps)
        to_canonical = np.diag(np.append(step, 1.0))
        to_canonical[:3, 3] = (step - 1.0) / 2.0  # outer edges coincide
        return cls(
            orientation,
            shape,
            (counts[0], counts[1], counts[2]),
            (steps[0], steps[1], steps[2]),
            canonical @ to_canonical,
        )

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Edges of a working voxel, mm."""
        x, y, z = voxel_sizes(self.affine).tolist()
        return x, y, z

    def forward(self, data: NDArray[Any], order: Order = 1) -> NDArray[Any]:
        """Bring stored data to the working grid.

        Parameters
        ----------
        data : (X, Y, Z) array
            On the stored grid; finite values only.
        order : 0 to 5
            Spline order; 0 = nearest neighbour (masks and labels: type kept).

        Returns
        -------
        Array of shape `self.shape`: float32 where interpolated with order > 0.

        Raises
        ------
        GridMismatchError
            When the shape is not the stored one.
        """
        self._check(data, self.stored_shape)
        return _resample(self.orientation.forward(data), self.shape, self.steps, order)

    def backward(self, data: NDArray[Any], order: Order = 1) -> NDArray[Any]:
        """Bring working-grid data back to the stored grid (see `forward`)."""
        self._check(data, self.shape)
        axes = self.orientation.axes
        canonical = (self.stored_shape[axes[0]], self.stored_shape[axes[1]], self.stored_shape[axes[2]])
        inverse = (1.0 / self.steps[0], 1.0 / self.steps[1], 1.0 / self.steps[2])
        return np.ascontiguousarray(self.orientation.backward(_resample(data, canonical, inverse, order)))

    @staticmethod
    def _check(data: NDArray[Any], shape: tuple[int, int, int]) -> None:
        if data.shape != shape:
            detail = f"shapes {data.shape} and {shape}"
            raise GridMismatchError(GRID_MISMATCH.format(first="image", second="grid", detail=detail))


def _resample(
    data: NDArray[Any], shape: tuple[int, int, int], steps: tuple[float, float, float], order: Order
) -> NDArray[Any]:
    """Resample along the axes whose step is not 1, with outer voxel edges kept in place.

    Linear and higher orders are low-passed first where voxels grow: a Gaussian of
    sigma = sqrt(step^2 - 1) / 2.355 voxels turns a point spread of one voxel
    full width into one of `step` voxels (Cardoso et al., MICCAI 2015).
    """
    if steps == (1.0, 1.0, 1.0):
        return np.ascontiguousarray(data)
    if order > 0:
        data = data.astype(np.float32)
        sigma = [np.sqrt(max(step * step - 1.0, 0.0)) / 2.355 for step in steps]
        if any(sigma):
            data = ndimage.gaussian_filter(data, sigma, mode="nearest")
    resampled: NDArray[Any] = ndimage.zoom(
        data,
        [new / old for new, old in zip(shape, data.shape, strict=True)],
        order=order,
        mode="nearest",
        grid_mode=True,
    )
    return resampled
