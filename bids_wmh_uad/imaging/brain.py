"""The brain in a head scan, by deepbet."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.device import is_out_of_memory
from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.errors import GPU_BRAIN, NO_BRAIN, BadImageError

LOGGER = logging.getLogger("bids_wmh_uad")
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
        ``cpu``, ``cuda`` or ``cuda:N``. What a GPU has no memory for, the CPU does.

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
    from scipy.ndimage import binary_fill_holes

    voxel_ml = float(np.prod(image.header.get_zooms())) / 1000
    try:
        brain = _extract(image, name, device)
    except (ValueError, AssertionError):  # deepbet's way of saying that nothing stands out
        raise BadImageError(NO_BRAIN.format(path=name, volume=0)) from None
    mask = np.asanyarray(brain.dataobj) > 0
    support = binary_fill_holes(np.asanyarray(image.dataobj) != 0)
    stripped = dice(mask, support) > STRIPPED_DICE and not support.all()
    mask = support if stripped else mask
    if mask.sum() * voxel_ml < MIN_BRAIN_ML:
        raise BadImageError(NO_BRAIN.format(path=name, volume=mask.sum() * voxel_ml))
    return mask, stripped


def _extract(image: nib.Nifti1Image, name: Path, device: str) -> nib.Nifti1Image:
    """What deepbet takes for brain; its GPU is torch's current one."""
    import torch
    from deepbet import BrainExtraction

    if device != "cpu":
        try:
            with torch.cuda.device(device):
                return BrainExtraction().run(image)[1]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        LOGGER.warning(GPU_BRAIN.format(path=name, device=device))
    return BrainExtraction(no_gpu=True).run(image)[1]
