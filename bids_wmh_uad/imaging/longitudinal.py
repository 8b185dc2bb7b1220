"""The sessions of one person in one space, halfway between them all: registered by ANTs, resampled once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.space import DECIMALS, common_grid, in_any_order, mean_motion, rigid_part
from bids_wmh_uad.core.image.volume import bounding_box
from bids_wmh_uad.core.parallel import process_map
from bids_wmh_uad.imaging.registration import register
from bids_wmh_uad.imaging.resampling import resample
from bids_wmh_uad.imaging.scans import as_image

Array = NDArray[Any]
"""Array of any type."""


@dataclass(frozen=True, eq=False)
class CommonSpace:
    """Where the sessions of a person meet.

    Attributes
    ----------
    grid : Nifti1Image
        The grid, empty.
    motions : tuple of (4, 4) array
        Each session's rigid motion, which takes its images (FLAIR's world, RAS mm) there.
    """

    grid: nib.Nifti1Image
    motions: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class _Registration:
    """One session to the mean: what a worker needs."""

    mean: nib.Nifti1Image
    seed: int

    def __call__(self, session: tuple[nib.Nifti1Image, Array]) -> Array:
        """Motion of a session, from where it starts."""
        flair, start = session
        moved = as_image(np.asanyarray(flair.dataobj, dtype=np.float32), start @ flair.affine)
        return register(self.mean, moved, transform="Rigid", seed=self.seed) @ start


def find_common_space(
    flairs: Sequence[nib.Nifti1Image],
    to_template: Sequence[Array],
    seed: int,
    params: ChangeParameters,
    n_jobs: int = 1,
) -> CommonSpace:
    """Align the sessions of a person with their mean, which favours none of them.

    Every session starts at the rigid part of its affine to the template; all are registered to their mean, which
    is made anew between rounds; in the end the mean of the motions since the start is taken back. The same in any order of the sessions.

    Parameters
    ----------
    flairs : sequence of Nifti1Image
        Skull-stripped (background 0), in units of white matter's mode.
    to_template : sequence of (4, 4) array
        Each FLAIR's affine transform to the template, RAS mm.
    seed : int
        Of the registration.
    params : ChangeParameters
    n_jobs : int
        Processes.

    Returns
    -------
    CommonSpace

    Notes
    -----
    After Reuter, Schmansky, Rosas and Fischl, NeuroImage 2012: a subject's own template, without its robust cost function.
    """
    centres = [_centre(flair) for flair in flairs]
    starts = [rigid_part(matrix, point) for matrix, point in zip(to_template, centres, strict=True)]
    motions = starts
    for spacing in params.rounds_mm:
        grid = _grid(flairs, motions, spacing, params.margin_mm)
        mean = as_image(in_any_order(on_grid(flairs, motions, grid)).astype(np.float32), grid.affine)
        registration, sessions = _Registration(mean, seed), zip(flairs, motions, strict=True)
        # in processes: ITK's seed is the process's, so threads would not give the same motions
        motions = (
            process_map(registration, sessions, n_jobs) if n_jobs > 1 else [*map(registration, sessions)]
        )
    since = [motion @ np.linalg.inv(start) for motion, start in zip(motions, starts, strict=True)]
    middle = in_any_order(
        np.stack([start[:3, :3] @ point + start[:3, 3] for start, point in zip(starts, centres, strict=True)])
    )
    back = np.linalg.inv(mean_motion(since, middle))
    settled = tuple((back @ motion).round(DECIMALS) for motion in motions)
    return space_of(flairs, settled, params)


def space_of(
    flairs: Sequence[nib.Nifti1Image], motions: Sequence[Array], params: ChangeParameters
) -> CommonSpace:
    """The common space that known motions lead to."""
    return CommonSpace(_grid(flairs, motions, params.grid_mm, params.margin_mm), tuple(motions))


def on_grid(
    images: Sequence[nib.Nifti1Image],
    motions: Sequence[Array],
    grid: nib.Nifti1Image,
    interpolation: str = "linear",
) -> NDArray[np.float32]:
    """Every image on the common grid, in one interpolation: (n, X, Y, Z)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Resampling binary images")
        moved = [
            resample(image, grid, motion, interpolation=interpolation)
            for image, motion in zip(images, motions, strict=True)
        ]
    return np.stack(moved)


def _centre(image: nib.Nifti1Image) -> Array:
    """World coordinates of the brain's centre of mass."""
    inside = np.argwhere(np.asanyarray(image.dataobj) != 0)
    return np.asarray(image.affine[:3, :3] @ inside.mean(axis=0) + image.affine[:3, 3])


def _grid(
    flairs: Sequence[nib.Nifti1Image], motions: Sequence[Array], spacing: float, margin: float
) -> nib.Nifti1Image:
    boxes = []
    for flair, motion in zip(flairs, motions, strict=True):
        box = bounding_box(np.asanyarray(flair.dataobj) != 0)
        corner = np.eye(4)
        corner[:3, 3] = [side.start for side in box]
        x, y, z = (side.stop - side.start for side in box)
        boxes.append((motion @ flair.affine @ corner, (x, y, z)))
    shape, affine = common_grid(boxes, spacing, margin)
    return as_image(np.zeros(shape, dtype=np.uint8), affine)
