"""Where ventricles, deep nuclei, the posterior fossa and the lobes lie in the template: files in ``data``.

No atlas of the first three comes with any dependency. ``benchmarks/landmarks.py`` derives theirs from the template's
tissue maps, ``benchmarks/lobes.py`` that of the lobes.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.imaging import resampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATA = Path(__file__).parents[1] / "data"
LANDMARKS_FILE = DATA / "landmarks" / "landmarks.nii.gz"
"""Ventricles, posterior fossa and deep nuclei on the template at 2 mm: uint8, `core.lesion.landmarks.Landmark`."""
LOBES_FILE = DATA / "lobes" / "lobes.nii.gz"
"""Lobes on the template at 2 mm: uint8, labels of `core.lesion.lobes.LOBES`."""


def atlas_on(grid: nib.Nifti1Image, from_template: NDArray[np.float64]) -> dict[Landmark, NDArray[np.bool_]]:
    """The atlas's regions on a session's grid, by label.

    Parameters
    ----------
    grid : Nifti1Image
    from_template : (4, 4) array
        Moves the template to the grid's space, RAS mm.
    """
    labels = _on(LANDMARKS_FILE, grid, from_template)
    labelled = (Landmark.VENTRICLES, Landmark.INFRATENTORIAL, Landmark.DEEP_GREY)
    return {label: labels == label for label in labelled}


def lobes_on(grid: nib.Nifti1Image, from_template: NDArray[Any]) -> NDArray[np.uint8]:
    """The atlas of lobes on a session's grid: labels of `core.lesion.lobes.LOBES`, from 1; 0 = none.

    They fill the grid, beyond the template's brain too, for a session's brain may be larger than that, and go on
    below the tentorium: `core.lesion.lobes.lobes_of` cuts them.

    Parameters
    ----------
    grid : Nifti1Image
    from_template : (4, 4) array
        Moves the template to the grid's space, RAS mm.

    Returns
    -------
    (X, Y, Z) uint8 array
    """
    return _on(LOBES_FILE, grid, from_template)


def _on(file: Path, grid: nib.Nifti1Image, from_template: NDArray[Any]) -> NDArray[np.uint8]:
    """The labels of one of the files on a session's grid."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(file.read_bytes()))
    return resampling.resample(image, grid, from_template, interpolation="nearest").astype(np.uint8)
