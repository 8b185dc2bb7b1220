"""The sessions of one person in one space, halfway between them all: registered by ANTs, resampled once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.space import (
    DECIMALS,
    common_grid,
    in_any_order,
    mean_motion,
    rigid_part,
    size_difference,
)
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
        Each session's motion, which takes its images (FLAIR's world, RAS mm) there.
    affines : tuple of (4, 4) array
        Each session's affine motion there, by which sizes are compared; where `rigid` is False they are the motions. Empty where motions
        were known before.
    rigid : bool
        The motions are; if not, sizes differ by more than `ChangeParameters.size_limit`.
    """

    grid: nib.Nifti1Image
    motions: tuple[Array, ...]
    affines: tuple[Array, ...] = ()
    rigid: bool = True

    def size_difference(self, first: int, second: int) -> float:
        """How far the sizes of two sessions' heads differ, as a share."""
        return size_difference(self.affines[first], self.affines[second])


@dataclass(frozen=True, eq=False)
class _Registration:
    """One session to the mean: what a worker needs."""

    mean: nib.Nifti1Image
    transform: str
    seed: int

    def __call__(self, session: tuple[nib.Nifti1Image, Array]) -> Array:
        """Motion of a session, from where it starts."""
        flair, start = session
        moved = as_image(np.asanyarray(flair.dataobj, dtype=np.float32), start @ flair.affine)
        motion = register(self.mean, moved, transform=self.transform, seed=self.seed, same_head=True)
        return np.asarray(motion @ start)


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

    Motions are rigid. Then sizes are compared: by an affine registration of each session to the same mean. Where two sessions' differ by more than
    `ChangeParameters.size_limit`, which no head does but scans do whose gradients were calibrated otherwise, or that others have
    brought to a template, the motions of all sessions are affine, by one more round, and the mean has the mean size.

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
    motions: Sequence[Array] = starts
    for spacing in params.rounds_mm:
        motions = _to_mean(flairs, motions, "Rigid", spacing, seed, params, n_jobs)
    finest = params.rounds_mm[-1]
    affines = _to_mean(flairs, motions, "Affine", finest, seed, params, n_jobs)
    rigid = max(size_difference(*two) for two in combinations(affines, 2)) <= params.size_limit
    if not rigid:
        motions = affines = _to_mean(flairs, affines, "Affine", finest, seed, params, n_jobs)
    since = [motion @ np.linalg.inv(start) for motion, start in zip(motions, starts, strict=True)]
    middle = in_any_order(
        np.stack([start[:3, :3] @ point + start[:3, 3] for start, point in zip(starts, centres, strict=True)])
    )
    back = np.linalg.inv(mean_motion(since, middle, rigid=rigid))
    settled, sizes = ([(back @ motion).round(DECIMALS) for motion in kind] for kind in (motions, affines))
    return replace(space_of(flairs, settled, params), affines=tuple(sizes), rigid=rigid)


def _to_mean(
    flairs: Sequence[nib.Nifti1Image],
    motions: Sequence[Array],
    transform: str,
    spacing: float,
    seed: int,
    params: ChangeParameters,
    n_jobs: int,
) -> Sequence[Array]:
    """Each session's motion, from where it is, to the mean of all where they are."""
    grid = _grid(flairs, motions, spacing, params.margin_mm)
    mean = as_image(in_any_order(on_grid(flairs, motions, grid)).astype(np.float32), grid.affine)
    registration, sessions = _Registration(mean, transform, seed), zip(flairs, motions, strict=True)
    # in processes: ITK's seed is the process's, so threads would not give the same motions
    return process_map(registration, sessions, n_jobs) if n_jobs > 1 else [*map(registration, sessions)]


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
