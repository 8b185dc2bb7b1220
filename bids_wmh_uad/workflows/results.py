"""Reading what a finished session left: its images and transforms."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.core.volume import Volume
from bids_wmh_uad.errors import (
    NOT_3D_IMAGE,
    UNREADABLE_IMAGE,
    UNREADABLE_SIDECAR,
    BadDataError,
    BadImageError,
)

LPS_TO_RAS = (-1.0, -1.0, 1.0, 1.0)


def result_path(summary: Path, output: str) -> Path:
    """Where the session with this summary has one of its outputs, by its name in ``derivatives.OUTPUTS``."""
    start = str(summary).removesuffix(derivatives.OUTPUTS["summary"])
    return Path(start + derivatives.OUTPUTS[output])


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


def read_transform(path: Path) -> NDArray[np.float64]:
    """Read what ``tools.itk_text`` wrote: (4, 4), moves an image from source to target (RAS, mm).

    Raises
    ------
    BadDataError
        If the file is absent or says something else.
    """
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        numbers = np.array(lines["Parameters"].split(), dtype=np.float64)
        pull = np.eye(4)
        pull[:3] = np.column_stack([numbers[:9].reshape(3, 3), numbers[9:]])
        flip = np.diag(LPS_TO_RAS)
        return np.asarray(flip @ np.linalg.inv(pull) @ flip, dtype=np.float64)
    except (OSError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error
