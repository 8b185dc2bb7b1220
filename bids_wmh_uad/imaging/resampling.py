"""Images on another grid, in one interpolation, by nilearn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.image.volume import Volume, check_same_grid
from bids_wmh_uad.errors import (
    RESAMPLE_HINT,
    GridMismatchError,
)

Array = NDArray[Any]
"""Array of any type."""


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
    result: Volume, reference: Volume, names: tuple[Path, Path], may_resample: bool
) -> NDArray[Any]:
    """The reference's labels on the result's grid.

    Parameters
    ----------
    result, reference : Volume
    names : (Path, Path)
        Their files, for the error message.
    may_resample : bool
        Bring a reference on another grid to the result's, nearest neighbour.

    Returns
    -------
    (X, Y, Z) array

    Raises
    ------
    GridMismatchError
        If the reference is on another grid and is not to be resampled.
    """
    first, second = map(str, names)
    try:
        check_same_grid(result, reference, (first, second))
    except GridMismatchError as error:
        if may_resample:
            source = nib.Nifti1Image(np.asarray(reference.data, dtype=np.float32), reference.affine)
            grid = nib.Nifti1Image(np.zeros(result.shape, dtype=np.uint8), result.affine)
            return np.rint(resample(source, grid, np.eye(4), interpolation="nearest"))
        raise GridMismatchError(f"{error} {RESAMPLE_HINT}") from error
    return reference.data
