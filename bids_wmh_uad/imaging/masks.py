"""Lesion masks that users bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.image.volume import Volume, voxel_sizes
from bids_wmh_uad.errors import ODD_REFERENCE, ONE_VALUE, BadDataError
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging.resampling import Array, on_grid_of
from bids_wmh_uad.imaging.scans import read_volume

LESION, OTHER_PATHOLOGY = 1, 2
"""Labels of a reference; the WMH challenge leaves the second out of the evaluation."""
LIKELY = 0.5
"""Probability from which a voxel of a probabilistic reference is lesion."""
WHOLE = 1e-3
"""Distance from a whole number that scale factors leave."""
MARGIN_MM = 2.0
"""Margin around a lesion mask, mm: raters differ by about a voxel at a lesion's border."""


def read_reference(
    path: Path, grid: Volume, scan: Path, **placing: Any
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Read a reference and bring it to a scan's grid, as `reference_labels`."""
    return reference_labels(read_volume(path), path, grid, scan, **placing)


def reference_labels(
    stored: Volume, path: Path, grid: Volume, scan: Path, **placing: Any
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """A reference's labels on a scan's grid: 0, `LESION`, `OTHER_PATHOLOGY`.

    Values between 0 and 1 are probabilities, lesion from `LIKELY` on; they are resampled linearly, labels by
    nearest neighbour. A mask whose only value is another one, such as 255, is a mask all the same.

    Parameters
    ----------
    stored : Volume
        The reference.
    path : Path
        Its file, for the messages.
    grid : Volume
        The scan's.
    scan : Path
        The file of `grid`, for the messages.
    placing
        ``matrix``, ``may_resample`` and ``remedy`` of `resampling.on_grid_of`.

    Returns
    -------
    (X, Y, Z) uint8 array
    tuple of str
        What the user should know.

    Raises
    ------
    GridMismatchError
        If it is on another grid and is not to be resampled.
    BadDataError
        If its values are those of no mask.
    """
    data = np.nan_to_num(stored.data, nan=0.0)  # what lies outside the brain, in some programs
    values = np.unique(data)
    whole = bool((np.abs(values - np.rint(values)) < WHOLE).all())
    if not whole and (values[0] < 0 or values[-1] > 1 + WHOLE):
        raise BadDataError(ODD_REFERENCE.format(path=path, values=_few(values)))
    notes = []
    if whole:
        labels = np.rint(values).astype(np.int64)
        if set(labels) - {0, LESION, OTHER_PATHOLOGY}:
            _require_one_value(path, labels)
            notes.append(ONE_VALUE.format(path=path, value=labels[-1]))
            data = data > 0
        else:
            data = np.rint(data, dtype=np.float32).astype(np.uint8)
    moved, note = on_grid_of(
        grid,
        Volume(data, stored.affine),
        (scan, path),
        interpolation="nearest" if whole else "linear",
        **placing,
    )
    found = moved if whole else moved >= LIKELY
    return found.astype(np.uint8), (*notes, *([note] if note else []))


def _require_one_value(path: Path, labels: NDArray[np.int64]) -> None:
    if labels[0] < 0 or np.count_nonzero(labels) > 1:
        raise BadDataError(ODD_REFERENCE.format(path=path, values=_few(labels)))


def _few(values: Array) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:4])
    return shown if len(values) <= 4 else f"{shown}, ..., {values[-1]:g}"


def read_lesions(path: Path, scan: Path, **placing: Any) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """A lesion mask with its surroundings, in the canonical order of the scan's axes.

    Every label counts, a reference's other pathology too. `MARGIN_MM` are added: raters differ by
    about a voxel at a lesion's border, and the voxels there hold both tissues. Patches that see
    a lesion at their edge stay: most of the periventricular white matter would go with them, and
    a patient's healthy voxels beside a lesion should be known as normal.

    Parameters
    ----------
    path, scan : Path
        The mask, and the user's FLAIR.
    placing
        As in `read_reference`.

    Returns
    -------
    (X, Y, Z) bool array
    tuple of str
        What the user should know.

    Raises
    ------
    GridMismatchError, BadDataError
        As `read_reference`.
    """
    grid = Volume(np.asanyarray((image := read_grid(scan)).dataobj), image.affine)
    labels, notes = read_reference(path, grid, scan, **placing)
    image = nib.as_closest_canonical(nib.Nifti1Image((labels > 0).astype(np.uint8), grid.affine))
    lesions: NDArray[np.bool_] = np.asanyarray(image.dataobj) > 0
    if not lesions.any():
        return lesions, notes
    distance = ndimage.distance_transform_edt(~lesions, sampling=voxel_sizes(image.affine))
    grown: NDArray[np.bool_] = np.asarray(distance <= MARGIN_MM)
    return grown, notes
