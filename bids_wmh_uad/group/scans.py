"""A finished session's scan once more, from its derivatives, and the numbers that it was scored with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.core.image.intensity import Scaling, smooth_inside
from bids_wmh_uad.core.image.volume import Volume, check_same_grid
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.lesion.lobes import lobes_of
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import UNREADABLE_SIDECAR, BadDataError, UsageError
from bids_wmh_uad.imaging.atlas import lobes_on
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import as_image, read_volume
from bids_wmh_uad.imaging.templates import grey_matter_prior
from bids_wmh_uad.reading import read_object


def read_tissue(summary: Path) -> tuple[Tissue, NDArray[np.float64]]:
    """Read one session as the steps before the score leave it.

    Parameters
    ----------
    summary : Path
        Of a finished session; its preprocessed FLAIR and T1w, their sidecars, the brain mask and the
        transform to the template lie beside it.

    Returns
    -------
    tissue : Tissue
        z-scores against white matter, brain and prior of grey matter, on the FLAIR's own grid.
    affine : (4, 4) array
        Of that grid, voxel to world, mm.

    Raises
    ------
    GridMismatchError
        If the three images do not share a grid.
    BadDataError
        If a file is absent or cannot be read.
    """
    paths = {name: result_path(summary, name) for name in ("flair", "t1w", "brain")}
    volumes = {name: read_volume(path) for name, path in paths.items()}
    flair, brain = volumes["flair"], volumes["brain"]
    for name in ("t1w", "brain"):
        check_same_grid(flair, volumes[name], (str(paths["flair"]), str(paths[name])))
    flair_z, t1w_z = (read_scaling(paths[name]).apply(volumes[name].data) for name in ("flair", "t1w"))
    prior = grey_matter_prior(brain, read_transform(result_path(summary, "flair_to_template")))
    return Tissue(flair_z, t1w_z, brain.data > 0, prior), flair.affine


def read_lobes(
    summary: Path, landmarks: NDArray[Any], mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The lobes of a session (`core.lesion.lobes.lobes_of`), from its transform: an older version wrote no image of them.

    Parameters
    ----------
    summary : Path
    landmarks, mask : (X, Y, Z) arrays
        The session's regions and brain, on the FLAIR's own grid.
    affine : (4, 4) array
        Of that grid.

    Raises
    ------
    BadDataError
        If there is no such transform.
    """
    to_template = read_transform(result_path(summary, "flair_to_template"))
    grid = as_image(np.zeros(mask.shape, dtype=np.uint8), affine)
    return lobes_of(lobes_on(grid, np.linalg.inv(to_template)), landmarks, mask)


def read_scaling(path: Path) -> Scaling:
    """White matter's mode and scale of a preprocessed contrast, from its sidecar.

    Raises
    ------
    BadDataError
        `errors.UNREADABLE_SIDECAR`, when it does not say.
    """
    sidecar = derivatives.sidecar_path(path)
    try:
        white_matter = read_object(sidecar)["WhiteMatter"]
        return Scaling(float(white_matter["mode"]), float(white_matter["scale"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=sidecar, reason=error)) from error


def read_parameters(summary: Path) -> DetectionParameters:
    """The numbers that a session was scored with, as its anomaly map's sidecar has them; defaults where it has none.

    Raises
    ------
    BadDataError
        `errors.UNREADABLE_SIDECAR`, when a number is none, or cannot be.
    """
    sidecar = derivatives.sidecar_path(result_path(summary, "anomaly"))
    recorded = derivatives.read_summary(sidecar).get("Parameters") or {}
    try:
        known = DetectionParameters().of_score().keys() & recorded.keys()
        return DetectionParameters(**{name: recorded[name] for name in known})
    except (UsageError, TypeError, AttributeError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=sidecar, reason=error)) from error


def read_decision(summary: Path) -> LesionDecision:
    """The weights that a session's candidates were judged with, as its evidence's sidecar has them; those without a network where it has none.

    Raises
    ------
    BadDataError
        `errors.UNREADABLE_SIDECAR`, when they cannot be.
    """
    sidecar = derivatives.sidecar_path(result_path(summary, "evidence"))
    recorded = derivatives.read_summary(sidecar).get("LesionDecision")
    try:
        return LesionDecision.of(recorded) if recorded else LesionDecision()
    except (TypeError, ValueError, AttributeError) as error:
        raise BadDataError(UNREADABLE_SIDECAR.format(path=sidecar, reason=error)) from error


def flair_z_map(path: Path, flair: Volume, brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The FLAIR z-score of a session, smoothed as the score smooths at least.

    Parameters
    ----------
    path : Path
        Of the preprocessed FLAIR; its sidecar has the scaling.
    flair : Volume
        Its content.
    brain : (X, Y, Z) bool array

    Returns
    -------
    (X, Y, Z) float32 array, 0 outside the brain

    Raises
    ------
    BadDataError
        `errors.UNREADABLE_SIDECAR`, as `read_scaling`.
    """
    z = read_scaling(path).apply(flair.data)
    return smooth_inside(z, brain, flair.zooms, DetectionParameters.sigma_mm)
