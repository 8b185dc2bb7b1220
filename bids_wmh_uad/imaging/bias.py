"""Bias-field correction, by N4 of ANTs."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.imaging.registration import to_ants

Array = NDArray[Any]
"""Array of any type."""


def correct_bias(image: nib.Nifti1Image, mask: Array, *, levels: int) -> Array:
    """N4 (Tustison et al., IEEE Trans Med Imaging 2010) at shrink factor 4 inside the brain mask.

    Parameters
    ----------
    image : Nifti1Image
    mask : ndarray of bool, shape (X, Y, Z)
    levels : int
        Resolutions of 50 iterations each. The field's control points lie a brain's length
        apart at the first, and half as far at each further one: at the fourth (about 25 mm)
        the field begins to follow confluent lesions (docs/preprocessing.md).

    Returns
    -------
    ndarray of float32, shape (X, Y, Z)
        In the image's units; voxels that are exactly 0 stay so.
    """
    import ants

    data = np.asanyarray(image.dataobj)
    offset = min(0.0, float(data.min()))  # N4 takes logarithms
    corrected = ants.n4_bias_field_correction(
        to_ants(data - offset, image.affine),
        mask=to_ants(mask, image.affine),
        shrink_factor=4,
        convergence={"iters": [50] * levels, "tol": 1e-3},
    )
    # an empty background stays 0, also where the offset moved it
    return np.where(data == 0, 0, corrected.numpy() + offset).astype(np.float32)
