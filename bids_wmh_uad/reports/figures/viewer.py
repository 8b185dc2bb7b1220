"""The images of the page's viewer: FLAIR, anomaly map and what was outlined, small enough for a page.

The page hands them to NiiVue (``reports/vendor/niivue``); without it, or on paper, the other figures say the same.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.files import dump_json, write_text
from bids_wmh_uad.reports.figures.lesions import score_range
from bids_wmh_uad.reports.figures.mosaic import CanonicalVolume, crop, grey_levels, load_together

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

    from bids_wmh_uad.reports.figures.mosaic import ImageLike

VOXEL_BUDGET = 450_000
"""Largest number of voxels near the brain: some 0.4 MB of a page."""
RIM_MM = 6.0
"""How far outside the brain FLAIR is shown, mm."""
GREY_STEP, SCORE_STEP = 4, 8
"""Steps of 256 levels that are told apart: fewer levels compress better."""
LESION, REJECTED = 1, 2
"""Values of the image of what was outlined."""


def write_viewer(
    flair: ImageLike,
    anomaly: ImageLike,
    threshold: float,
    out: str | PathLike[str],
    *,
    mask: ImageLike,
    lesions: ImageLike,
    rejected: ImageLike,
) -> Path:
    """Write what the viewer shows, as JSON.

    Parameters
    ----------
    flair, anomaly, mask, lesions, rejected : path or nibabel image
        On the same grid; a mask of the brain, and label images or masks of lesions and candidates.
    threshold : float
        Operating point, in the anomaly map's unit.
    out : path
        JSON to write.

    Returns
    -------
    Path
        `out`: ``flair``, ``anomaly`` and ``marks`` (1: lesion, 2: rejected) as gzipped NIfTI in base64; ``low``,
        ``high`` and ``threshold``, as levels of the anomaly map; the ``centre`` of the largest lesion, mm.

    Raises
    ------
    GridMismatchError
        If the images are not on the same grid.
    """
    scan, scores, brain_scan, found, turned_down = load_together(flair, anomaly, mask, lesions, rejected)
    brain = brain_scan.data > 0.5
    near = (
        ndimage.distance_transform_edt(~brain, sampling=tuple(scan.zooms)) <= RIM_MM
        if brain.any()
        else ~brain
    )
    box = crop(near, scan.zooms, margin_mm=0)
    factors = _factors(int(near.sum()), scan.zooms)
    grey = np.where(near, np.maximum(grey_levels(scan.data, brain), 1), 0)
    low, high = score_range(scores.data[brain], threshold)
    levels = np.where(brain, np.clip((scores.data - low) / (high - low), 0, 1) * 254 + 1, 0)
    marks = np.where(found.data > 0.5, LESION, np.where(turned_down.data > 0.5, REJECTED, 0))
    affine = _affine(scan, box, factors)
    content = {
        "flair": _encode(_steps(_blocks(grey[box], factors).mean(axis=(1, 3, 5)), GREY_STEP), affine),
        "anomaly": _encode(_steps(_blocks(levels[box], factors).mean(axis=(1, 3, 5)), SCORE_STEP), affine),
        "marks": _encode(_smallest_mark(_blocks(marks[box], factors)), affine),
        "low": low,
        "high": high,
        "threshold": threshold,
        "centre": _centre(scan, found.data, brain),
    }
    return write_text(Path(out), dump_json(content).decode())


def _factors(voxels: int, zooms: NDArray[np.float64]) -> tuple[int, int, int]:
    """How many voxels become one along each axis: the finest axes first, until the budget is met."""
    factors = [1, 1, 1]
    while voxels / np.prod(factors) > VOXEL_BUDGET:
        factors[int(np.argmin(zooms * factors))] += 1
    return factors[0], factors[1], factors[2]


def _blocks(data: NDArray[Any], factors: tuple[int, int, int]) -> NDArray[Any]:
    """Blocks of voxels, shape (i, fi, j, fj, k, fk); the far end is filled with zeros."""
    padded = np.pad(data, [(0, -length % factor) for length, factor in zip(data.shape, factors, strict=True)])
    shape = [
        part
        for length, factor in zip(padded.shape, factors, strict=True)
        for part in (length // factor, factor)
    ]
    return padded.reshape(shape)


def _smallest_mark(blocks: NDArray[Any]) -> NDArray[np.uint8]:
    """What a block of marks becomes: a lesion, if it has a voxel of one."""
    marked = np.where(blocks > 0, blocks, 255).min(axis=(1, 3, 5))
    return np.where(marked == 255, 0, marked).astype(np.uint8)


def _steps(levels: NDArray[Any], step: int) -> NDArray[np.uint8]:
    """Levels in coarser steps; what is not 0 stays so."""
    coarse = np.maximum(np.rint(levels / step) * step, np.where(levels > 0, 1, 0))
    small: NDArray[np.uint8] = np.minimum(coarse, 255).astype(np.uint8)
    return small


def _affine(
    scan: CanonicalVolume, box: tuple[slice, slice, slice], factors: tuple[int, int, int]
) -> NDArray[Any]:
    """Voxel to world of the small grid, mm."""
    small = np.diag([*factors, 1.0])
    small[:3, 3] = [side.start + (factor - 1) / 2 for side, factor in zip(box, factors, strict=True)]
    affine: NDArray[Any] = scan.affine @ small
    return affine


def _encode(data: NDArray[np.uint8], affine: NDArray[Any]) -> str:
    """Gzipped NIfTI in base64, the same bytes whenever it is written."""
    import nibabel as nib

    image: Any = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    return b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode("ascii")


def _centre(scan: CanonicalVolume, lesions: NDArray[np.float32], brain: NDArray[np.bool_]) -> list[float]:
    """World coordinates of lesion 1, or of the brain's centre, mm."""
    chosen = lesions == 1 if (lesions == 1).any() else brain
    middle = np.argwhere(chosen).mean(axis=0) if chosen.any() else (np.array(chosen.shape) - 1) / 2
    return [round(scan.world(list(middle), axis), 1) for axis in range(3)]
