"""Images on another grid, in one interpolation, by nilearn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.image.volume import AFFINE_TOLERANCE_MM, Volume, grid_difference, grid_distance
from bids_wmh_uad.errors import GRID_MISMATCH, RESAMPLE_HINT, ROUNDED_AFFINE, GridMismatchError

Array = NDArray[Any]
"""Array of any type."""
ROUNDING = 0.1
"""Shift below which a voxel is still the same one, voxels: programs store affines in few digits, or as quaternions."""


def resample(
    image: nib.Nifti1Image, target: nib.Nifti1Image, matrix: Array, *, interpolation: str = "linear"
) -> Array:
    """Bring an image to another's grid through a linear transform, in one interpolation.

    Moving an image by a linear transform is changing its affine; nilearn does the rest.

    Parameters
    ----------
    image, target : Nifti1Image
    matrix : ndarray, shape (4, 4)
        From the image's world to the target's.
    interpolation : {"linear", "continuous", "nearest"}
        ``continuous`` is a cubic spline.

    Returns
    -------
    (X, Y, Z) float32 array
    """
    from nilearn.image import resample_img

    moving = nib.Nifti1Image(np.asanyarray(image.dataobj, dtype=np.float32), matrix @ image.affine)
    out = resample_img(
        moving,
        target_affine=target.affine,
        target_shape=target.shape[:3],
        interpolation=interpolation,
        copy_header=True,
        force_resample=True,
    )
    return np.asanyarray(out.dataobj, dtype=np.float32)


def on_grid_of(
    grid: Volume,
    moving: Volume,
    names: tuple[Path, Path],
    *,
    matrix: Array | None = None,
    may_resample: bool = False,
    remedy: str = RESAMPLE_HINT,
    interpolation: str = "nearest",
) -> tuple[Array, str | None]:
    """Bring what users have to a scan's grid: as it is, where its voxels are the scan's.

    They are when the other program stored them in another order of axes, or rounded the affine: up to
    `ROUNDING` of a voxel over the whole image.

    Parameters
    ----------
    grid, moving : Volume
    names : (Path, Path)
        Their files, for the messages.
    matrix : (4, 4) array, optional
        From the moving image's world to the grid's, where the two differ: then it is resampled.
    may_resample : bool
        Resample an image on another grid.
    remedy : str
        What else to do, for the message.
    interpolation : {"nearest", "linear"}

    Returns
    -------
    (X, Y, Z) array
    str or None
        What the user should know.

    Raises
    ------
    GridMismatchError
        If it is on another grid and is not to be resampled.
    """
    if matrix is None:
        ordered = _in_order_of(grid, moving)
        same_shape = grid.shape == ordered.shape
        millimetres, voxels = grid_distance(grid, ordered) if same_shape else (np.inf, np.inf)
        if voxels < ROUNDING:
            note = ROUNDED_AFFINE.format(path=names[1], millimetres=millimetres, voxels=voxels)
            return ordered.data, note if millimetres > AFFINE_TOLERANCE_MM else None
        if not may_resample:
            detail = grid_difference(grid, ordered)
            message = GRID_MISMATCH.format(first=names[0], second=names[1], detail=detail)
            raise GridMismatchError(f"{message} {remedy}".rstrip())
        matrix = np.eye(4)
    source = nib.Nifti1Image(np.asarray(moving.data, dtype=np.float32), moving.affine)
    target = nib.Nifti1Image(np.zeros(grid.shape, dtype=np.uint8), grid.affine)
    return resample(source, target, matrix, interpolation=interpolation), None


def _in_order_of(grid: Volume, moving: Volume) -> Volume:
    """The same image with its axes stored in the grid's order and directions."""
    turn = nib.orientations.ornt_transform(nib.io_orientation(moving.affine), nib.io_orientation(grid.affine))
    back = nib.orientations.inv_ornt_aff(turn, moving.shape)
    return Volume(nib.apply_orientation(moving.data, turn), moving.affine @ back)
