"""The template that nilearn ships, its tissue priors, and both on a scan's grid."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.image.template import GM_LIKELY, TRAINING_LEVEL
from bids_wmh_uad.core.image.template import template_brain as brain_of
from bids_wmh_uad.core.image.volume import Volume
from bids_wmh_uad.imaging.resampling import resample
from bids_wmh_uad.imaging.scans import as_image

Array = NDArray[Any]
"""Array of any type."""


def template_brain(template: nib.Nifti1Image) -> NDArray[np.bool_]:
    """Where the T1w template has brain, as training and voxel-wise models take it."""
    return brain_of(np.asanyarray(template.dataobj), TRAINING_LEVEL)


def template(name: str, resolution: int = 1) -> nib.Nifti1Image:
    """The template that nilearn ships (ICBM 2009a symmetric), brain only.

    Parameters
    ----------
    name : {"T1w", "WM", "GM"}
        The T1w average, or a tissue's probability in [0, 1].
    resolution : int
        Isotropic voxel size in mm.
    """
    from nilearn import datasets

    load = {
        "T1w": datasets.load_mni152_template,
        "WM": datasets.load_mni152_wm_template,
        "GM": datasets.load_mni152_gm_template,
    }[name]
    image = load(resolution=resolution)
    return as_image(np.asanyarray(image.dataobj, dtype=np.float32), image.affine)


def priors_on(flair: nib.Nifti1Image, from_template: Array) -> dict[str, Array]:
    """The template's tissue priors and T1w on a FLAIR's grid: ``wm``, ``gm``, ``template``."""
    names = {"wm": "WM", "gm": "GM", "template": "T1w"}
    return {key: resample(template(name), flair, from_template) for key, name in names.items()}


def grey_matter_prior(image: Volume, to_template: Array) -> NDArray[np.float32]:
    """The template's grey matter, [0, 1], on a session's grid, as the participant level takes it.

    Parameters
    ----------
    image : Volume
        Any image of the session.
    to_template : (4, 4) array
        Moves the session's images to the template, RAS mm.
    """
    grid = as_image(np.zeros(image.shape, dtype=np.uint8), image.affine)
    return resample(template("GM"), grid, np.linalg.inv(to_template))


def grey_matter(image: Volume, to_template: Array) -> NDArray[np.bool_]:
    """Where `grey_matter_prior` is above `GM_LIKELY`."""
    return grey_matter_prior(image, to_template) > GM_LIKELY
