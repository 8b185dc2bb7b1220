"""Images on another grid, in one interpolation, by nilearn."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
    """
    from nilearn.image import resample_img

    moved = nib.Nifti1Image(np.asanyarray(image.dataobj, dtype=np.float32), matrix @ image.affine)
    out = resample_img(
        moved,
        target_affine=target.affine,
        target_shape=target.shape[:3],
        interpolation=interpolation,
        copy_header=True,
        force_resample=True,
    )
    return np.asanyarray(out.dataobj, dtype=np.float32)
