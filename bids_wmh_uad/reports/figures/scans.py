"""Figures of the subject page: images in, one self-contained SVG out.

Images may be paths or nibabel images on any grid and in any storage order; the
slices shown are the scan's own, in neurological convention (left is left), with
the right aspect. They are mosaics of JPEG panels with vector
outlines; hovering over a panel hides its outline, hovering over a registration
flickers between its two images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_wmh_uad.reports.figures.mosaic import (
    AXIAL,
    CORONAL,
    PAGE_WIDTH,
    SAGITTAL,
    CanonicalVolume,
    Panel,
    crop,
    data_uri,
    foreground,
    grey_levels,
    load_together,
    panel,
    spread_indices,
    thin_out,
    write_mosaic,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from bids_wmh_uad.reports.figures.mosaic import ImageLike

MAX_PANELS = 24
"""Largest number of slices in a figure: four rows."""
PANEL_COLUMNS = 6
"""Number of panels in a row."""
NO_LESION = "no lesion found"
"""Notice on the figure of a session without lesions."""
BRAIN_COLOUR, LESION_COLOUR, THRESHOLD_COLOUR, REJECTED_COLOUR = "#ff5c5c", "#ff3b30", "#2ee6e6", "#4da3ff"
"""Colours of outlines, told apart on grey."""
COLOUR_MAP = "inferno"
"""Name of matplotlib's colour map of anomaly scores: its brightness rises evenly."""


def _rows(panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    return [panels[start : start + PANEL_COLUMNS] for start in range(0, len(panels), PANEL_COLUMNS)]


def lesion_slices(lesions: NDArray[np.bool_], limit: int = MAX_PANELS) -> list[int]:
    """Axial slices of a canonical volume that hold a lesion, evenly thinned to at most `limit`."""
    return thin_out(np.flatnonzero(lesions.any(axis=(0, 1))), limit)


def plot_brain_mask(image: ImageLike, mask: ImageLike, out: str | PathLike[str]) -> Path:
    """Draw the brain outline over axial slices of an image.

    Parameters
    ----------
    image, mask : path or nibabel image
        On the same grid.
    out : path
        SVG to write.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GridMismatchError
        If the two are not on the same grid.
    """
    scan, mask_scan = load_together(image, mask)
    brain = mask_scan.data > 0.5
    box = crop(brain, scan.zooms, margin_mm=14)
    grey = grey_levels(scan.data, brain)
    inner = crop(brain, scan.zooms, margin_mm=0)
    outlines = [(BRAIN_COLOUR, brain)]
    panels = [
        panel(scan, [grey], AXIAL, k, box, outlines)
        for k in spread_indices(inner[AXIAL], 3 * PANEL_COLUMNS, trim=0.02)
    ]
    return write_mosaic(_rows(panels), out, f"Brain mask: {brain.sum() * scan.voxel_ml:.0f} mL")


def plot_registration(
    fixed: ImageLike,
    moving: ImageLike,
    out: str | PathLike[str],
    *,
    mask: ImageLike | None = None,
    names: tuple[str, str] = ("FLAIR", "T1w"),
) -> Path:
    """Draw two registered images so that hovering flickers between them.

    Parameters
    ----------
    fixed, moving : path or nibabel image
        On the same grid; `moving` already resampled.
    out : path
        SVG to write.
    mask : path or nibabel image, optional
        Brain mask on that grid: its outline is drawn over both, and sets crop and grey levels.
    names : (str, str)
        What the two are called in the figure.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GridMismatchError
        If the images are not on the same grid.
    """
    scans = load_together(fixed, moving, *([] if mask is None else [mask]))
    grid = scans[0]
    if mask is not None:
        brain = scans[2].data > 0.5
        foregrounds = [brain, brain]
    else:
        foregrounds = [foreground(scan) for scan in scans]
        brain = foregrounds[0] | foregrounds[1]
    layers = [grey_levels(scan.data, inside) for scan, inside in zip(scans, foregrounds, strict=False)]
    box = crop(brain, grid.zooms, margin_mm=8)
    outlines = [(BRAIN_COLOUR, brain)] if mask is not None else []
    rows = [
        [
            panel(grid, layers, axis, index, box, outlines)
            for axis, count, trim in cuts
            for index in spread_indices(box[axis], count, trim)
        ]
        for cuts in ([(AXIAL, 6, 0.15)], [(CORONAL, 3, 0.25), (SAGITTAL, 3, 0.28)])
    ]
    heading = f"{names[1]} registered to {names[0]}: point at the figure to flicker"
    return write_mosaic(rows, out, heading, names=names)


def plot_template_registration(
    image: ImageLike,
    template: ImageLike,
    out: str | PathLike[str],
    *,
    mask: ImageLike | None = None,
    names: tuple[str, str] = ("FLAIR", "MNI152"),
) -> Path:
    """Draw an image and the template, on one grid (either's), flickering while hovered.

    Parameters, returns and errors as in `plot_registration`.
    """
    return plot_registration(image, template, out, mask=mask, names=names)


def _lesion_view(
    scan: CanonicalVolume, lesions: NDArray[np.bool_], brain: NDArray[np.bool_]
) -> tuple[list[int], str]:
    """Slices that the lesion and anomaly figures share, and how to call them."""
    slices = lesion_slices(lesions)
    if not slices:
        return spread_indices(crop(brain, scan.zooms, 0)[AXIAL], 3 * PANEL_COLUMNS), ""
    total = int(lesions.any(axis=(0, 1)).sum())
    return slices, f"{len(slices)} of {total} slices with lesions"


def plot_lesions(
    flair: ImageLike,
    lesions: ImageLike,
    out: str | PathLike[str],
    *,
    mask: ImageLike | None = None,
    rejected: ImageLike | None = None,
) -> Path:
    """Draw lesion outlines on every axial FLAIR slice that has lesions (at most 24, evenly chosen).

    What was found and not taken for a lesion is outlined in a second colour; where there is no lesion at all, its
    slices are shown.

    Parameters
    ----------
    flair, lesions : path or nibabel image
        On the same grid; `lesions` is a mask or a label image.
    out : path
        SVG to write.
    mask : path or nibabel image, optional
        Brain mask, for crop and grey levels; guessed from the FLAIR if not given.
    rejected : path or nibabel image, optional
        Mask or label image of the rejected candidates.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GridMismatchError
        If the images are not on the same grid.
    """
    optional = {"mask": mask, "rejected": rejected}
    given = {name: image for name, image in optional.items() if image is not None}
    scan, first, *others = load_together(flair, lesions, *given.values())
    found = {name: other.data > 0.5 for name, other in zip(given, others, strict=True)}
    marked, turned_down = first.data > 0.5, found.get("rejected", np.zeros(first.data.shape, bool))
    brain = found["mask"] if mask is not None else foreground(scan)
    slices, label = _lesion_view(scan, marked if marked.any() else turned_down, brain)
    box = crop(brain | marked, scan.zooms, margin_mm=4)
    grey = grey_levels(scan.data, brain)
    outlines = [(REJECTED_COLOUR, turned_down), (LESION_COLOUR, marked)]
    panels = [panel(scan, [grey], AXIAL, k, box, outlines) for k in slices]
    blue = "; blue: seen, and not taken for a lesion" if turned_down.any() else ""
    if not marked.any():
        return write_mosaic(_rows(panels), out, f"FLAIR{blue}", notice=NO_LESION)
    heading = f"{label}, {marked.sum() * scan.voxel_ml:.2f} mL{blue}: point at a slice to hide its outlines"
    return write_mosaic(_rows(panels), out, heading)


def _colour(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of numbers in [0, 1], shape (..., 3)."""
    from matplotlib import colormaps

    table = (np.asarray(colormaps[COLOUR_MAP](np.arange(256)))[:, :3] * 255).astype(np.uint8)
    return table[(np.clip(values, 0, 1) * 255).astype(np.uint8)]


def _colour_bar(low: float, high: float, threshold: float) -> tuple[str, float]:
    """Colour bar with the threshold marked, as an SVG fragment and its height."""
    left, width = 0.25 * PAGE_WIDTH, 0.5 * PAGE_WIDTH
    at = left + width * min(max((threshold - low) / (high - low), 0), 1)
    ramp = _colour(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (4, 1)))
    ticks = "".join(
        f'<text x="{left + width * part:.0f}" y="56" text-anchor="middle">{low + part * (high - low):.3g}</text>'
        for part in (0, 1)
    )
    return (
        f'<g class="wmh-colourbar"><image x="{left:.0f}" y="24" width="{width:.0f}" height="16" preserveAspectRatio="none"'
        f' href="{data_uri(ramp)}"/>{ticks}'
        f'<line class="wmh-threshold" x1="{at:.1f}" x2="{at:.1f}" y1="19" y2="45" stroke="{THRESHOLD_COLOUR}" stroke-width="3"/>'
        f'<text x="{at:.1f}" y="14" text-anchor="middle">threshold {threshold:.4g}</text></g>'
    ), 64.0


def _score_range(scores: NDArray[np.float32], threshold: float) -> tuple[float, float]:
    """Limits of the colour scale: the brain's median score to its 99.9th percentile, threshold included."""
    if scores.size == 0:
        return threshold - 1, threshold + 1
    low, high = (float(value) for value in np.percentile(scores, (50, 99.9)))
    low, high = min(low, threshold), max(high, threshold)
    return low, max(high, low + 1e-6 * max(abs(low), 1))


def plot_anomaly_map(
    flair: ImageLike,
    anomaly: ImageLike,
    threshold: float,
    out: str | PathLike[str],
    *,
    lesions: ImageLike | None = None,
    mask: ImageLike | None = None,
) -> Path:
    """Draw the anomaly map over the FLAIR, on the slices that `plot_lesions` shows.

    Parameters
    ----------
    flair, anomaly : path or nibabel image
        On the same grid; a larger anomaly is more abnormal.
    threshold : float
        Operating point, in the anomaly map's unit: marked in the colour bar, outlined in the slices.
    out : path
        SVG to write.
    lesions : path or nibabel image, optional
        Lesion mask that chooses the slices; by default what exceeds the threshold.
    mask : path or nibabel image, optional
        Brain mask; by default where the map is not 0.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GridMismatchError
        If the images are not on the same grid.
    """
    scan, scores = load_together(flair, anomaly)
    brain = load_together(flair, mask)[1].data > 0.5 if mask is not None else scores.data != 0
    above = (scores.data > threshold) & brain
    marked = load_together(flair, lesions)[1].data > 0.5 if lesions is not None else above
    slices, label = _lesion_view(scan, marked, brain)
    crop_mask = brain if mask is not None else foreground(scan)
    box = crop(crop_mask | marked, scan.zooms, margin_mm=4)
    low, high = _score_range(scores.data[brain], threshold)
    grey = grey_levels(scan.data, crop_mask)[..., None]
    share = np.clip((scores.data - low) / (high - low), 0, 1)
    weight = np.where(brain, np.minimum(share * 1.6, 0.8), 0)[..., None].astype(np.float32)
    blend = np.empty((*scan.data.shape, 3), dtype=np.uint8)
    for k in slices:
        blend[:, :, k] = grey[:, :, k] * (1 - weight[:, :, k]) + _colour(share[:, :, k]) * weight[:, :, k]
    panels = [panel(scan, [blend], AXIAL, k, box, [(THRESHOLD_COLOUR, above)]) for k in slices]
    heading = f"Anomaly map: {label or 'no slice with lesions'}; outlined where it exceeds the threshold"
    return write_mosaic(_rows(panels), out, heading, footer=_colour_bar(low, high, threshold))
