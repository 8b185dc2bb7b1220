"""Reading NIfTI images: the header is checked before anything is allocated, and no more is read than it says.

Every image that this program did not make itself in the same session comes through here: scans, reference masks,
results of earlier runs. Lengths come out in millimetres, whatever unit the header has.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from bids_wmh_uad.errors import (
    BAD_AFFINE,
    HUGE_IMAGE,
    NOT_3D_IMAGE,
    ODD_VOXEL_SIZES,
    ODD_VOXELS,
    TRUNCATED_IMAGE,
    UNREADABLE_IMAGE,
    BadImageError,
)
from bids_wmh_uad.reading import ANNEX_POINTER, open_file

MAX_VOXELS = 2**28
"""Largest number of voxels: a whole head at 0.4 mm (640 x 640 x 640) has fewer."""
VOXEL_SIZES_MM = (0.1, 20.0)
"""Smallest and largest edge of a voxel in a scan of a head, mm."""
MAX_SHEAR = 0.01
"""Largest difference between an affine and its nearest one without shear, per millimetre: what rounding explains."""
MAX_OFFSET = 2**24
"""Largest number of bytes before the voxels: the header's extensions."""
MAX_PADDING = 4096
"""Largest number of bytes behind the last voxel: more than a writer's padding means that the header is wrong."""
MAX_SHRINKING = 1032
"""Factor by which gzip can shrink data at most, a property of the format."""
CHUNK = 2**22
"""Bytes read at a time."""
MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""Millimetres in the header's unit of length, by its code: metres and micrometres; all others count as millimetres."""
UNIT_NAMES = {1: "metres", 3: "micrometres"}
"""Names of these units."""


def read_image(path: Path) -> nib.Nifti1Image:
    """Read one 3D image with its voxels, as it is stored; trailing axes of length 1 are dropped.

    Parameters
    ----------
    path : Path
        NIfTI-1 or NIfTI-2 in one file, compressed if its name ends in ``.gz``.

    Returns
    -------
    Nifti1Image or Nifti2Image
        (X, Y, Z), scale factors applied, lengths in mm.

    Raises
    ------
    BadImageError
        If the file cannot be read, is no NIfTI, has another length than its header says, is not 3D, has more voxels
        than `MAX_VOXELS`, an affine that cannot be inverted, or voxel sizes out of `VOXEL_SIZES_MM`.
    """
    with _opened(path) as (stream, header):
        data = _read_voxels(path, stream, header)
    return _as_image(data, header)


def read_grid(path: Path) -> nib.Nifti1Image:
    """Read the grid of an image: its voxels are not read, and all 0.

    Raises
    ------
    BadImageError
        As `read_image`, as far as the header tells.
    """
    header = read_header(path)
    return _as_image(np.broadcast_to(np.uint8(0), header.get_data_shape()[:3]), header)


def read_header(path: Path) -> nib.Nifti1Header:
    """Read and check a header, with the lengths in the file's own unit.

    Raises
    ------
    BadImageError
        As `read_image`, as far as the header tells.
    """
    with _opened(path) as (_, header):
        return header


def unit_code(header: nib.Nifti1Header) -> int:
    """Code of the unit of length in ``xyzt_units``."""
    return int(header["xyzt_units"]) & 7


def in_millimetres(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """The header with all lengths in mm; itself, where they are that already, or of no known unit."""
    factor = MM_PER_UNIT.get(unit_code(header))
    if factor is None:
        return header
    header = header.copy()
    header["pixdim"][1:4] *= factor
    for name in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        header[name] = header[name] * factor
    header.set_xyzt_units("mm", header.get_xyzt_units()[1])
    return header


def _as_image(data: NDArray[Any], header: nib.Nifti1Header) -> nib.Nifti1Image:
    header = in_millimetres(header)
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(data, header.get_best_affine(), header)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedReader, nib.Nifti1Header]]:
    """The file's content behind its header, and the header; what goes wrong becomes typed."""
    try:
        with open_file(path) as raw:
            stream: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            header = _parse(stream)
            _check(path, header)
            yield stream, header
    except (EOFError, zlib.error) as error:
        raise BadImageError(TRUNCATED_IMAGE.format(path=path, reason=error)) from error
    except (OSError, ValueError, OverflowError, KeyError, HeaderDataError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadImageError(UNREADABLE_IMAGE.format(path=path, reason=reason)) from error


def _parse(stream: BufferedReader) -> nib.Nifti1Header:
    """Read the header and what lies between it and the voxels."""
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    block = stream.read(4)
    if block.startswith(ANNEX_POINTER[:4]):
        raise OSError("its content is not here: run 'datalad get'")
    sizes = {int.from_bytes(block, order) for order in ("little", "big")} & kinds.keys()
    if not sizes:
        raise OSError("it does not begin like one")
    size = sizes.pop()
    block += _exactly(stream, size - len(block))
    header = kinds[size](block)
    if bytes(header["magic"])[:3] != b"n+" + (b"1" if size == 348 else b"2"):
        raise OSError("it does not say that it is one")
    offset = header.get_data_offset()
    if not size <= offset <= MAX_OFFSET:
        raise OSError(f"voxels at byte {offset}")
    _exactly(stream, offset - size)
    return header


def _exactly(stream: BufferedReader, size: int) -> bytes:
    block = stream.read(size)
    if len(block) != size:
        raise EOFError("its header is cut off")
    return block


def _check(path: Path, header: nib.Nifti1Header) -> None:
    """Refuse what is no volume of a head, by the header alone."""
    shape = header.get_data_shape()
    if len(shape) < 3 or min(shape) < 1 or math.prod(shape[3:]) != 1:
        raise BadImageError(NOT_3D_IMAGE.format(path=path, shape=shape))
    if math.prod(shape) > MAX_VOXELS:
        raise BadImageError(HUGE_IMAGE.format(path=path, shape=shape[:3], limit=MAX_VOXELS // 10**6))
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf" or dtype.itemsize > 8:  # complex, colour, longer than a double
        raise BadImageError(ODD_VOXELS.format(path=path, dtype=" and ".join(dtype.names or [str(dtype)])))
    with np.errstate(all="ignore"):
        try:
            affine = in_millimetres(header).get_best_affine()
            usable = np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) != 0
        except (HeaderDataError, np.linalg.LinAlgError):
            usable = False
    if not usable:
        raise BadImageError(BAD_AFFINE.format(path=path, limit=MAX_SHEAR))
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not (VOXEL_SIZES_MM[0] <= sizes.min() and sizes.max() <= VOXEL_SIZES_MM[1]):
        shown = " x ".join(f"{size:.4g}" for size in sizes)
        unit = UNIT_NAMES.get(unit_code(header), "millimetres")
        raise BadImageError(ODD_VOXEL_SIZES.format(path=path, sizes=shown, unit=unit))


def _read_voxels(path: Path, stream: BufferedReader, header: nib.Nifti1Header) -> NDArray[Any]:
    """Read as many voxels as the header says, and see that the file ends there."""
    shape, dtype = header.get_data_shape()[:3], header.get_data_dtype()
    size = math.prod(shape) * dtype.itemsize
    shrunk = MAX_SHRINKING if path.suffix == ".gz" else 1
    if size > path.stat().st_size * shrunk:  # before memory is asked for
        raise EOFError(f"it cannot hold the {size} bytes that its header says")
    content = np.empty(size, dtype=np.uint8)
    done = 0
    while done < size:
        count = stream.readinto(content.data[done : done + CHUNK])
        if not count:
            raise EOFError(f"{done} bytes of voxels instead of {size}")
        done += count
    if len(stream.read(MAX_PADDING + 1)) > MAX_PADDING:  # a compressed file's checksum is verified here
        raise OSError("it holds more data than its header says")
    values = content.view(dtype).reshape(shape, order="F")
    slope, inter = header.get_slope_inter()
    with np.errstate(all="ignore"):
        return apply_read_scaling(  # type: ignore[no-any-return]
            values, np.float64(1.0 if slope is None else slope), np.float64(0.0 if inter is None else inter)
        )
