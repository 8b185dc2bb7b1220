"""Scans and volumes: read and checked, canonical, and put back on the user's grid."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_wmh_uad.core.image.volume import Volume
from bids_wmh_uad.errors import (
    BAD_AFFINE,
    EMPTY_IMAGE,
    NOT_3D_IMAGE,
    TINY_IMAGE,
    TRUNCATED_IMAGE,
    UNREADABLE_IMAGE,
    BadImageError,
)

Array = NDArray[Any]
"""Array of any type."""


MAX_SHEAR = 0.01
"""Largest difference between an affine and its nearest one without shear, per millimetre: what rounding explains."""

MIN_GRID = (16, 16, 4)
"""Smallest grid, voxels in any order of axes: less is no scan of a brain."""


def read_scan(path: Path) -> nib.Nifti1Image:
    """Read one 3D scan: canonical orientation, float32, NaN and infinity set to 0, qform = sform.

    Parameters
    ----------
    path : Path
        A NIfTI file: any storage order, data type and scale factor; a trailing axis of length 1 is dropped.

    Raises
    ------
    BadImageError
        If the file cannot be read, ends early, is constant, is not 3D, is tiny, or has a bad affine.
    """
    try:
        _check_gzip(path)
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    except (EOFError, zlib.error) as error:
        raise BadImageError(TRUNCATED_IMAGE.format(path=path, reason=error)) from error
    except (OSError, ValueError, ImageFileError, HeaderDataError) as error:
        if isinstance(error, HeaderDataError) and "affine" in str(error):
            raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR)) from error
        text = TRUNCATED_IMAGE if "Expected" in str(error) and "bytes" in str(error) else UNREADABLE_IMAGE
        raise BadImageError(text.format(path=path, reason=" ".join(str(error).split()))) from error
    if data.dtype.kind not in "biuf":  # complex or colour
        raise BadImageError(UNREADABLE_IMAGE.format(path=path, reason=f"data type {data.dtype}"))
    _check_shape(path, data.shape)
    data = data.reshape(data.shape[:3]).astype(np.float32)
    data[~np.isfinite(data)] = 0
    if data.min() == data.max():
        raise BadImageError(EMPTY_IMAGE.format(path=path, value=data.flat[0]))
    _rigid_affine(path, image.affine)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, image.affine))
    return as_image(np.asanyarray(canonical.dataobj), _rigid_affine(path, canonical.affine))


def _check_gzip(path: Path) -> None:
    """Read a ``.gz`` to its end, checksum included: nibabel stops at the last voxel."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or int(np.prod(shape[3:])) != 1:
        raise BadImageError(NOT_3D_IMAGE.format(path=path, shape=shape))
    if any(n < minimum for n, minimum in zip(sorted(shape[:3]), sorted(MIN_GRID), strict=True)):
        raise BadImageError(TINY_IMAGE.format(path=path, shape=shape[:3]))


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
        The user's image: its shape, affine, qform and sform are the result's.
    """
    orientation = nib.io_orientation(source.affine)
    back = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    image = nib.Nifti1Image(nib.apply_orientation(data, back), source.affine)
    for kind in ("qform", "sform"):
        form, code = getattr(source, f"get_{kind}")(coded=True)
        getattr(image, f"set_{kind}")(form if code else source.affine, code=int(code) or 1)
    image.header.set_xyzt_units("mm")
    return image


def read_volume(path: Path) -> Volume:
    """Read a 3D image as it is stored; trailing axes of length 1 are dropped.

    Raises
    ------
    BadImageError
        If it cannot be read, or is not 3D.
    """
    try:
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, ImageFileError, HeaderDataError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise BadImageError(UNREADABLE_IMAGE.format(path=path, reason=reason)) from error
    if data.ndim < 3 or data.size != np.prod(data.shape[:3]):
        raise BadImageError(NOT_3D_IMAGE.format(path=path, shape=data.shape))
    return Volume(data.reshape(data.shape[:3]), image.affine)
