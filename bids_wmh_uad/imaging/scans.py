"""Scans and volumes: read and checked, canonical, and put back on the user's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_wmh_uad.core.image.background import lift_background
from bids_wmh_uad.core.image.volume import Volume
from bids_wmh_uad.errors import (
    BAD_AFFINE,
    EMPTY_IMAGE,
    FORMS_DISAGREE,
    GUESSED_SIDES,
    OTHER_UNIT,
    TINY_IMAGE,
    BadImageError,
    SessionWarning,
)
from bids_wmh_uad.images import (
    MAX_SHEAR,
    UNIT_NAMES,
    in_millimetres,
    read_header,
    read_image,
    unit_code,
)

Array = NDArray[Any]
"""Array of any type."""

MIN_GRID = (16, 16, 4)
"""Smallest grid, voxels in any order of axes: less is no scan of a brain."""

SAME_PLACE_MM = 0.5
"""Distance between qform and sform, at the grid's corners, that counts as rounding, mm."""


def read_scan(path: Path) -> nib.Nifti1Image:
    """Read one 3D scan: canonical orientation, float32, NaN and infinity set to 0, qform = sform, mm.

    Parameters
    ----------
    path : Path
        A NIfTI file: any storage order, data type and scale factor; a trailing axis of length 1 is dropped.

    Raises
    ------
    BadImageError
        If the file cannot be read, ends early, is constant, is not 3D, is tiny, or has a bad affine.
    """
    data, affine = _read(path)
    return _canonical(path, np.where(np.isfinite(data), data, np.float32(0)), affine)


def read_lifted_scan(path: Path) -> tuple[nib.Nifti1Image, float]:
    """Read a scan as `read_scan`, with its background at 0 and below all else (`core.image.background`).

    Returns
    -------
    image : Nifti1Image
    shift : float
        What was added to everything but the background; 0 if nothing was.

    Raises
    ------
    BadImageError
        As `read_scan`.
    """
    data, affine = _read(path)
    lifted, shift = lift_background(data)
    return _canonical(path, lifted, affine), shift


def _read(path: Path) -> tuple[NDArray[np.float32], Array]:
    """A scan's voxels, as they are stored, and its affine."""
    image = read_image(path)
    if any(n < minimum for n, minimum in zip(sorted(image.shape), sorted(MIN_GRID), strict=True)):
        raise BadImageError(TINY_IMAGE.format(path=path, shape=image.shape))
    with np.errstate(over="ignore"):  # too large for float32: infinite, and so background
        data = np.asanyarray(image.dataobj).astype(np.float32)
    _rigid_affine(path, image.affine)
    return data, image.affine


def _canonical(path: Path, data: NDArray[np.float32], affine: Array) -> nib.Nifti1Image:
    if data.min() == data.max():
        raise BadImageError(EMPTY_IMAGE.format(path=path, value=data.flat[0]))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    return as_image(np.asanyarray(canonical.dataobj), _rigid_affine(path, canonical.affine))


def geometry_doubts(path: Path, contrast: str) -> list[SessionWarning]:
    """What there is to say of how a scan's header places it in the world.

    The form that counts is nibabel's choice: the sform if it has a code, else the qform, else the voxel sizes. All steps
    work on images that this program wrote with one form only, and so take the same one.

    Parameters
    ----------
    path : Path
    contrast : str
        What to call it.

    Raises
    ------
    BadImageError
        If it cannot be read.
    """
    header = read_header(path)
    doubts = []
    if (unit := UNIT_NAMES.get(unit_code(header))) is not None:
        doubts.append(OTHER_UNIT.format(contrast=contrast, unit=unit))
    header = in_millimetres(header)
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if sform is None and qform is None:
        return [*doubts, GUESSED_SIDES.format(contrast=contrast)]
    if sform is None:  # the qform has no voxel sizes of its own
        return doubts
    if qform is not None:
        other, distance = "qform", _distance(sform, qform, header.get_data_shape())
    else:
        sizes = np.linalg.norm(sform[:3, :3], axis=0)
        stretched = sform @ np.diag([*(np.asarray(header.get_zooms()[:3]) / sizes), 1.0])
        other, distance = "voxel sizes (pixdim)", _distance(sform, stretched, header.get_data_shape())
    if not distance <= SAME_PLACE_MM:
        doubts.append(FORMS_DISAGREE.format(contrast=contrast, value=distance, used="sform", other=other))
    return doubts


def _distance(first: Array, second: Array, shape: tuple[int, ...]) -> float:
    """Largest distance between where two affines put a corner of the grid, mm."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape[:3]), [1])).reshape(4, -1)
    return float(np.linalg.norm(((first - second) @ corners)[:3], axis=0).max())


def _rigid_affine(path: Path, affine: Array) -> Array:
    """The nearest affine without shear, which is what the qform (and ITK) can hold."""
    header = nib.Nifti1Header()
    try:
        header.set_qform(affine, code=1)
        rigid = header.get_qform()
    except (np.linalg.LinAlgError, ValueError, HeaderDataError):
        raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR)) from None
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(zooms > 0) or np.abs((rigid - affine)[:3, :3] / zooms).max() > MAX_SHEAR:
        raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR))
    return np.asarray(rigid)


def as_image(data: Array, affine: Array) -> nib.Nifti1Image:
    """An image in memory with qform equal to sform (code 1, scanner) and millimetres."""
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image


def to_grid_of(data: Array, source: nib.Nifti1Image) -> nib.Nifti1Image:
    """Put canonical (RAS) data back into the storage order and affine of the scan it came from.

    Parameters
    ----------
    data : ndarray, shape of the canonical grid
    source : Nifti1Image
        The user's image, lengths in mm: its shape, affine, qform and sform are the result's. A form without a code becomes
        the other, code included, so that all programs agree; where neither has one, the result claims no more than the scan.
    """
    orientation = nib.io_orientation(source.affine)
    back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    return with_forms_of(nib.apply_orientation(data, back), source)


def with_forms_of(data: Array, source: nib.Nifti1Image) -> nib.Nifti1Image:
    """An image on the grid of another, in its storage order, with its qform and sform (see `to_grid_of`)."""
    image = nib.Nifti1Image(data, source.affine)
    forms = {kind: getattr(source, f"get_{kind}")(coded=True) for kind in ("qform", "sform")}
    known = max(int(code) for _, code in forms.values())
    for kind, (form, code) in forms.items():
        getattr(image, f"set_{kind}")(form if code else source.affine, code=int(code) or known)
    image.header.set_xyzt_units("mm")
    return image


def read_volume(path: Path) -> Volume:
    """Read a 3D image as it is stored; trailing axes of length 1 are dropped.

    Raises
    ------
    BadImageError
        If it cannot be read, or is not 3D.
    """
    image = read_image(path)
    return Volume(np.asanyarray(image.dataobj), image.affine)
