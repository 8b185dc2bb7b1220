"""The sessions of one person in one space, halfway between them all: aligned with their mean, resampled once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from bids_wmh_uad.core.change.alignment import COARSE_MM, align
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.space import (
    DECIMALS,
    common_grid,
    in_any_order,
    mean_motion,
    rigid_part,
    size_difference,
)
from bids_wmh_uad.core.image.volume import bounding_box, cut_affine, voxel_sizes
from bids_wmh_uad.core.parallel import parallel_map
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


def find_common_space(
    flairs: Sequence[nib.Nifti1Image], to_template: Sequence[Array], params: ChangeParameters, n_jobs: int = 1
) -> CommonSpace:
    """Align the sessions of a person with their mean, which favours none of them.

    Every session starts at the rigid part of its affine to the template; all are aligned with their mean (`core.change.alignment`), which
    is made anew between rounds; in the end the mean of the motions since the start is taken back. The same in any order of the sessions.

    Motions are rigid. Then sizes are compared: each session is aligned with the same mean by an affine. Where two sessions' differ by more than
    `ChangeParameters.size_limit`, which no head does but scans do whose gradients were calibrated otherwise, or that others have
    brought to a template, the motions of all sessions are these affine ones, and the mean has the mean size.

    Parameters
    ----------
    flairs : sequence of Nifti1Image
        Skull-stripped (background 0), in units of white matter's mode.
    to_template : sequence of (4, 4) array
        Each FLAIR's affine transform to the template, RAS mm.
    params : ChangeParameters
    n_jobs : int
        Threads.

    Returns
    -------
    CommonSpace

    Notes
    -----
    After Reuter, Schmansky, Rosas and Fischl, NeuroImage 2012: a subject's own template.
    """
    centres = [_centre(flair) for flair in flairs]
    starts = [rigid_part(matrix, point) for matrix, point in zip(to_template, centres, strict=True)]
    motions: Sequence[Array] = starts
    for number in range(params.rigid_rounds):
        motions = _to_mean(flairs, motions, params, n_jobs, coarse=number == 0)
    affines = motions
    for _ in range(params.affine_rounds):
        affines = _to_mean(flairs, affines, params, n_jobs, rigid=False)
    rigid = max(size_difference(*two) for two in combinations(affines, 2)) <= params.size_limit
    motions = motions if rigid else affines
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
    params: ChangeParameters,
    n_jobs: int,
    *,
    rigid: bool = True,
    coarse: bool = False,
) -> Sequence[Array]:
    """Each session's motion, from where it is, to the mean of all where they are."""
    grid = _grid(flairs, motions, params.align_mm, COARSE_MM[0])
    images = on_grid(flairs, motions, grid, n_jobs=n_jobs)
    mean, brain = in_any_order(images).astype(np.float32), np.all(images > 0, axis=0)
    steps = parallel_map(
        lambda image: align(mean, image, brain, np.asarray(grid.affine), rigid=rigid, coarse=coarse),
        images,
        threads=n_jobs,
    )
    return [step @ motion for step, motion in zip(steps, motions, strict=True)]


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
    n_jobs: int = 1,
) -> NDArray[np.float32]:
    """Every image on the common grid, in one interpolation: (n, X, Y, Z).

    Parameters
    ----------
    images : sequence of Nifti1Image
        Background 0.
    motions : sequence of (4, 4) array
        From each image's world to the grid's, mm.
    grid : Nifti1Image
    interpolation : {"linear", "nearest"}
    n_jobs : int
        Threads.
    """
    with (
        warnings.catch_warnings()
    ):  # out here: it changes the whole process, and threads would undo each other's
        warnings.filterwarnings("ignore", message="Resampling binary images")
        moved = parallel_map(
            lambda one: resample_inside(one[0], grid, one[1], interpolation),
            zip(images, motions, strict=True),
            threads=n_jobs,
        )
    return np.stack(moved)


def resample_inside(
    image: nib.Nifti1Image, grid: nib.Nifti1Image, motion: Array, interpolation: str
) -> NDArray[np.float32]:
    """Bring an image to a grid in one interpolation, as `resampling.resample`: only the box of what is not 0 is looked at.

    Parameters
    ----------
    image, grid : Nifti1Image
    motion : (4, 4) array
        From the image's world to the grid's, mm.
    interpolation : {"linear", "nearest"}

    Returns
    -------
    (X, Y, Z) float32 array
    """
    out = np.zeros(grid.shape, np.float32)
    data = np.asanyarray(image.dataobj)
    inside = data != 0
    if not inside.any():
        return out
    box = bounding_box(inside, margin=1)
    source = as_image(data[box], cut_affine(image.affine, box))
    corners = np.array([*product(*((-1, side.stop - side.start) for side in box))])
    places = apply_affine(np.linalg.inv(grid.affine) @ motion @ source.affine, corners)
    low, high = np.floor(places.min(axis=0)).astype(int), np.ceil(places.max(axis=0)).astype(int) + 1
    target = tuple(
        slice(*np.clip((first, last), 0, size).tolist())
        for first, last, size in zip(low, high, grid.shape, strict=True)
    )
    if out[target].size:
        empty = as_image(np.zeros(out[target].shape, np.uint8), cut_affine(grid.affine, target))
        out[target] = resample(source, empty, motion, interpolation=interpolation)
    return out


def _centre(image: nib.Nifti1Image) -> Array:
    """World coordinates of the brain's centre of mass."""
    inside = np.argwhere(np.asanyarray(image.dataobj) != 0)
    return np.asarray(image.affine[:3, :3] @ inside.mean(axis=0) + image.affine[:3, 3])


def _grid(
    flairs: Sequence[nib.Nifti1Image], motions: Sequence[Array], spacing: float, margin: float
) -> nib.Nifti1Image:
    """The grid that holds all brains, as they lie in the common space, and so many mm around them."""
    places = [
        apply_affine(motion @ flair.affine, _ends(np.asanyarray(flair.dataobj) != 0))
        for flair, motion in zip(flairs, motions, strict=True)
    ]
    half = max(float(np.linalg.norm(voxel_sizes(flair.affine))) / 2 for flair in flairs)
    shape, affine = common_grid(places, spacing, margin + half)
    return as_image(np.zeros(shape, dtype=np.uint8), affine)


def _ends(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Of each column of voxels along the last axis the first and the last in a mask: nothing of it lies farther out in any direction."""
    x, y = np.nonzero(mask.any(axis=2))
    columns = mask[x, y]
    ends = columns.argmax(axis=1), mask.shape[2] - 1 - columns[:, ::-1].argmax(axis=1)
    return np.concatenate([np.stack([x, y, z], axis=1) for z in ends])
