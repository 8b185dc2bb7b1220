"""Brain mask and registrations of the subject page: images in, one self-contained SVG out.

Images may be paths or nibabel images on any grid and in any storage order; the
slices shown are the scan's own, in neurological convention (left is left), with
the right aspect. They are mosaics of JPEG panels with vector
outlines; hovering over a panel hides its outline, hovering over a registration
flickers between its two images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bids_wmh_uad.reports.figures.mosaic import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    crop,
    foreground,
    grey_levels,
    in_rows,
    load_together,
    panel,
    spread_indices,
    write_mosaic,
)

if TYPE_CHECKING:
    from os import PathLike

    from bids_wmh_uad.reports.figures.mosaic import ImageLike

BRAIN_COLOUR = "#ff5c5c"
"""Colour of the brain's outline."""
BRAIN_PANELS = 18
"""Number of slices that show the brain mask."""


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
        for k in spread_indices(inner[AXIAL], BRAIN_PANELS, trim=0.02)
    ]
    return write_mosaic(in_rows(panels), out, f"Brain mask: {brain.sum() * scan.voxel_ml:.0f} mL")


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
