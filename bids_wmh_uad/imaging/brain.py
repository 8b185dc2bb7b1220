"""The brain in a head scan, by deepbet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.errors import (
    NO_BRAIN,
    BadImageError,
)

Array = NDArray[Any]
"""Array of any type."""


STRIPPED_DICE = 0.8
"""Dice of deepbet's mask and the non-zero voxels above which an image counts as
skull-stripped. Measured: stripped scans 0.86-0.98, heads on a zero background 0.60-0.68."""

MIN_BRAIN_ML = 200.0
"""Least volume of a brain, mL: less is a failed extraction."""


def brain_mask(image: nib.Nifti1Image, name: Path, *, device: str) -> tuple[Array, bool]:
    """The brain in a T1w or FLAIR, by deepbet; a skull-stripped image keeps its own outline.

    Parameters
    ----------
    image : Nifti1Image
        From :func:`read_scan`.
    name : Path
        The user's file, for the error message.
    device : str
        ``cpu``, or anything else to let deepbet use a GPU.

    Returns
    -------
    mask : ndarray of bool, shape (X, Y, Z)
    stripped : bool
        Whether the image was skull-stripped already.

    Raises
    ------
    BadImageError
        If less than 200 mL of brain is found.
    """
    from deepbet import BrainExtraction
    from scipy.ndimage import binary_fill_holes

    voxel_ml = float(np.prod(image.header.get_zooms())) / 1000
    try:
        _, brain, _ = BrainExtraction(no_gpu=device == "cpu").run(image)
    except (ValueError, AssertionError):  # deepbet's way of saying that nothing stands out
        raise BadImageError(NO_BRAIN.format(path=name, volume=0)) from None
    mask = np.asanyarray(brain.dataobj) > 0
    support = binary_fill_holes(np.asanyarray(image.dataobj) != 0)
    stripped = dice(mask, support) > STRIPPED_DICE and not support.all()
    mask = support if stripped else mask
    if mask.sum() * voxel_ml < MIN_BRAIN_ML:
        raise BadImageError(NO_BRAIN.format(path=name, volume=mask.sum() * voxel_ml))
    return mask, stripped
