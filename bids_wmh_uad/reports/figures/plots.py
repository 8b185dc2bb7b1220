"""The panels of the page's mosaics as a matplotlib figure, for notebooks and papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.reports.figures.lesions import LESION_COLOUR, REJECTED_COLOUR
from bids_wmh_uad.reports.figures.mosaic import (
    AXIAL,
    PANEL_COLUMNS,
    crop,
    grey_levels,
    load_together,
    panel,
    spread_indices,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bids_wmh_uad.reports.figures.mosaic import ImageLike, Panel

PANEL_INCHES = 1.8
"""Width of a panel, inches."""
MARGIN_MM = 4
"""Room around the brain, mm."""


def plot_slices(
    flair: ImageLike, brain: ImageLike, lesions: ImageLike, rejected: ImageLike, count: int
) -> Figure:
    """Draw axial slices over the whole brain, with outlines of lesions and rejected candidates.

    Parameters
    ----------
    flair, brain, lesions, rejected : path or nibabel image
        On one grid; masks or label images.
    count : int
        Number of slices, evenly spread.

    Returns
    -------
    matplotlib.figure.Figure
        Unknown to pyplot, so that a notebook shows it once.

    Raises
    ------
    GridMismatchError
        If the images are not on the same grid.
    """
    import matplotlib.pyplot as plt

    scan, *masks = load_together(flair, brain, lesions, rejected)
    inside, marked, turned_down = (mask.data > 0.5 for mask in masks)
    box = crop(inside | marked, scan.zooms, MARGIN_MM)
    grey = grey_levels(scan.data, inside)
    outlines = [(REJECTED_COLOUR, turned_down), (LESION_COLOUR, marked)]
    chosen = spread_indices(crop(inside, scan.zooms, 0)[AXIAL], count, trim=0.02)
    panels = [panel(scan, [grey], AXIAL, index, box, outlines) for index in chosen]
    rows = -(-len(panels) // PANEL_COLUMNS)
    width, height = panels[0].size_mm
    size = (PANEL_COLUMNS * PANEL_INCHES, rows * PANEL_INCHES * height / width)
    figure, axes = plt.subplots(
        rows, PANEL_COLUMNS, figsize=size, squeeze=False, facecolor="black",
        gridspec_kw={"wspace": 0.02, "hspace": 0.02, "left": 0, "right": 1, "bottom": 0, "top": 1},
    )  # fmt: skip
    for place in axes.flat:
        place.set_axis_off()
    for place, item in zip(axes.flat, panels, strict=False):
        _draw(place, item)
    plt.close(figure)
    return figure


def _draw(axes: Axes, item: Panel) -> None:
    width, height = item.size_mm
    rows, columns = item.layers[0].shape
    axes.imshow(
        item.layers[0], cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="none"
    )
    across = (np.arange(columns) + 0.5) * width / columns
    down = (np.arange(rows) + 0.5) * height / rows
    for colour, mask in item.outlines:
        if mask.any():
            axes.contour(across, down, mask, levels=[0.5], colors=[colour], linewidths=0.8)
    style: dict[str, Any] = {"color": "white", "fontsize": 7}
    left, right = item.sides
    axes.text(2, 2, left, va="top", **style)
    axes.text(width - 2, 2, right, va="top", ha="right", **style)
    axes.text(2, height - 2, item.caption, va="bottom", **style)
