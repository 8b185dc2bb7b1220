"""Lesion masks that users bring."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.image.volume import Volume, voxel_sizes
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging.resampling import on_grid_of
from bids_wmh_uad.imaging.scans import read_volume

MARGIN_MM = 2.0
"""Margin around a lesion mask, mm: raters differ by about a voxel at a lesion's border."""


def read_lesions(path: Path, scan: Path, *, resample: bool) -> NDArray[np.bool_]:
    """A lesion mask with its surroundings, in the canonical order of the scan's axes.

    Every label counts, a reference's other pathology too. `MARGIN_MM` are added: raters differ by
    about a voxel at a lesion's border, and the voxels there hold both tissues. Patches that see
    a lesion at their edge stay: most of the periventricular white matter would go with them, and
    a patient's healthy voxels beside a lesion should be known as normal.

    Parameters
    ----------
    path, scan : Path
        The mask, and the user's FLAIR.
    resample : bool
        Bring a mask on another grid to the scan's, nearest neighbour.

    Raises
    ------
    GridMismatchError
        If it is on another grid and is not to be resampled.
    BadImageError
        If it cannot be read.
    """
    grid = Volume(np.asanyarray((image := read_grid(scan)).dataobj), image.affine)
    mask = on_grid_of(grid, read_volume(path), (scan, path), resample) > 0
    image = nib.as_closest_canonical(nib.Nifti1Image(mask.astype(np.uint8), grid.affine))
    lesions: NDArray[np.bool_] = np.asanyarray(image.dataobj) > 0
    if not lesions.any():
        return lesions
    distance = ndimage.distance_transform_edt(~lesions, sampling=voxel_sizes(image.affine))
    grown: NDArray[np.bool_] = np.asarray(distance <= MARGIN_MM)
    return grown
