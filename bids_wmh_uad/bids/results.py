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
from bids_wmh_uad.core.image.volume import Volume
from bids_wmh_uad.errors import (
    NOT_3D_IMAGE,
    UNREADABLE_IMAGE,
    UNREADABLE_SIDECAR,
    BadDataError,
    BadImageError,
)
from bids_wmh_uad.imaging import registration, resampling, scans, templates


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


def grey_matter(summary: Path, like: Volume) -> NDArray[np.bool_]:
    """The template's grey matter on a session's grid, as the participant level takes it.

    Parameters
    ----------
    summary : Path
    like : Volume
        Any image of the session.

    Raises
    ------
    BadDataError
        If the session's transform to the template cannot be read.
    """
    to_template = read_transform(result_path(summary, "flair_to_template"))
    grid = scans.as_image(np.zeros(like.shape, dtype=np.uint8), like.affine)
    return (
        resampling.resample(templates.template("GM"), grid, np.linalg.inv(to_template)) > templates.GM_LIKELY
    )


def read_transform(path: Path) -> NDArray[np.float64]:
    """Read what ``registration.itk_text`` wrote: (4, 4), moves an image from source to target (RAS, mm).

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
        return np.asarray(
            registration.LPS_TO_RAS @ np.linalg.inv(pull) @ registration.LPS_TO_RAS, dtype=np.float64
        )
    except (OSError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=path, reason=error)) from error
