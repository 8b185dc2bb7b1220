"""Two sessions side by side with what changed outlined, and the lesion volume over time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bids_wmh_uad.reports.figures.charts import save
from bids_wmh_uad.reports.figures.labels import Label, anchor
from bids_wmh_uad.reports.figures.mosaic import (
    AXIAL,
    crop,
    cut,
    grey_levels,
    load_together,
    panel,
    spread_indices,
    write_mosaic,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    from numpy.typing import NDArray

    from bids_wmh_uad.reports.figures.mosaic import Box, CanonicalVolume, ImageLike, Panel

    Labels = NDArray[np.int32]

PAIRS_PER_ROW, MAX_PAIRS = 2, 6
"""Slices in a row, each of them twice, and in a figure."""
COLOURS = {"new": "#ff3b30", "gained": "#ffb000", "lost": "#4da3ff"}
"""Colours of outlines, told apart on grey: of new lesions, and of what lesions gained and lost."""
LEGEND = {
    "new": "Red: new lesions, {count} ({volume:.0f} mm³), {drawn} in these slices",
    "gained": "Orange: what lesions gained, {count} ({volume:.0f} mm³), {drawn} in these slices",
    "lost": "Blue: what lesions lost, in part or whole, {count} ({volume:.0f} mm³), {drawn} in these slices",
}
"""What each colour means, how much there is of it, and how much is drawn."""
NOTHING = "nothing changed"
"""Notice on the figure of a pair without change."""
CHANGE_NAME = "lesion {number}, slice {slice}, {what}"
"""What a number in the figure says."""
HEADING = "Each slice twice: {before} left, {after} right"


@dataclass(frozen=True)
class Timepoint:
    """A session's lesion volume.

    Attributes
    ----------
    label : str
        Name of the session.
    years : float or None
        Since the first session, where acquisition times are known.
    volume, low, high : float or None
        And the ends of its interval, mL.
    """

    label: str
    years: float | None
    volume: float
    low: float | None = None
    high: float | None = None


def place_of(prefix: str, kind: str) -> str:
    """Start of the ids of two sessions on the page.

    Parameters
    ----------
    prefix : str
        Of the later session's files.
    kind : str
        One of `derivatives.CHANGE_KINDS`.
    """
    return anchor(prefix, f"{kind}-change", 0)


def plot_change(
    before: ImageLike,
    after: ImageLike,
    mask: ImageLike,
    tissue: Mapping[str, ImageLike],
    out: str | PathLike[str],
    *,
    names: tuple[str, str],
    prefix: str,
) -> Path:
    """Draw two sessions' FLAIR side by side, in the slices in which most changed; the right one flickers.

    Parameters
    ----------
    before, after : path or nibabel image
        FLAIR in the common space, matched in brightness.
    mask : path or nibabel image
        Brain.
    tissue : mapping of str to path or nibabel image
        What changed, by the keys of `COLOURS`: label images, numbered as in the table of lesions. All on one grid.
    out : path
        SVG to write.
    names : (str, str)
        Of the sessions.
    prefix : str
        Start of the ids on the page, see `place_of`; the numbers lead to the lesions' rows in its table.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    GridMismatchError
        If the images are not on the same grid.
    """
    first, second, brain_scan, *marks = load_together(before, after, mask, *tissue.values())
    brain = brain_scan.data > 0.5
    changed = {name: np.rint(x.data).astype(np.int32) for name, x in zip(tissue, marks, strict=True)}
    box = crop(brain, first.zooms, margin_mm=4)
    both = grey_levels(np.concatenate([first.data, second.data]), np.concatenate([brain, brain]))
    grey = np.split(both, 2)
    shown = choose_slices(list(changed.values()), brain)
    panels: list[Panel] = []
    for k in shown:
        outlines = [(COLOURS[name], labels > 0) for name, labels in changed.items()]
        numbers = [
            label for name, labels in changed.items() for label in _numbers(labels, name, k, box, prefix)
        ]
        left = replace(panel(first, [grey[0]], AXIAL, k, box, outlines), id=f"{prefix}-slice-{k}")
        right = panel(first, [grey[1]], AXIAL, k, box, outlines, numbers)
        panels += [left, replace(right, above=left.id)]
    across = 2 * PAIRS_PER_ROW
    heading = [HEADING.format(before=names[0], after=names[1])]
    heading += _legend(changed, first, shown)
    return write_mosaic(
        [panels[start : start + across] for start in range(0, len(panels), across)],
        out,
        "\n".join(heading),
        columns=across,
        notice="" if any(labels.any() for labels in changed.values()) else NOTHING,
        names=(f"right: {names[1]}", f"right: {names[0]}"),
    )


def choose_slices(changed: Sequence[Labels], brain: NDArray[np.bool_]) -> list[int]:
    """Slices to show: those with the largest area of each change, the largest first; then evenly spaced ones.

    Parameters
    ----------
    changed : sequence of (i, j, k) arrays
        Numbers of lesions, 0 elsewhere.
    brain : (i, j, k) array
    """
    areas = [
        np.count_nonzero(labels == number, axis=(0, 1))
        for labels in changed
        for number in np.unique(labels[labels > 0])
    ]
    chosen: list[int] = []
    for area in sorted(areas, key=lambda one: -int(one.sum())):
        if len(chosen) < MAX_PAIRS and not area[chosen].any():
            chosen.append(int(np.argmax(area)))
    left = MAX_PAIRS - len(chosen)
    extent = crop(brain, np.ones(3), margin_mm=0)[AXIAL]
    return sorted({*chosen, *spread_indices(extent, left + 2)[1:-1]})


def _numbers(labels: Labels, what: str, k: int, box: Box, prefix: str) -> list[Label]:
    plane = cut(labels, AXIAL, k, box)
    return [
        Label(
            int(number),
            plane == number,
            CHANGE_NAME.format(number=number, slice=k, what=what),
            link=anchor(prefix, "row", int(number)),
        )
        for number in np.unique(plane[plane > 0])
    ]


def _legend(changed: Mapping[str, Labels], scan: CanonicalVolume, shown: Sequence[int]) -> list[str]:
    lines = []
    for name, labels in changed.items():
        count, drawn = (np.unique(x[x > 0]).size for x in (labels, labels[:, :, list(shown)]))
        volume = np.count_nonzero(labels) * scan.voxel_ml * 1000
        if count:
            lines.append(LEGEND[name].format(count=count, drawn=drawn, volume=volume))
    return lines


def plot_volumes(points: Sequence[Timepoint], out: str | PathLike[str]) -> Path:
    """Draw the lesion volume of all sessions with its interval, over years where they are known.

    Parameters
    ----------
    points : sequence of Timepoint
        In order.
    out : path
        SVG to write.

    Returns
    -------
    Path
        `out`.
    """
    from matplotlib.figure import Figure

    timed = all(point.years is not None for point in points)
    places = [float(point.years or 0) if timed else float(k) for k, point in enumerate(points)]
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(places, [point.volume for point in points], "o-", color="#cf222e", zorder=3)
    for x, point in zip(places, points, strict=True):
        if point.low is not None and point.high is not None:
            axes.plot(
                [x, x],
                [point.low, point.high],
                color="#cf222e",
                linewidth=6,
                alpha=0.25,
                solid_capstyle="butt",
            )
    axes.set_xticks(places, [_tick(point, timed) for point in points])
    axes.set_ylim(bottom=0)
    axes.margins(x=0.1)
    axes.set(xlabel="years since the first session" if timed else "session", ylabel="WMH volume, mL")
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, out)


def _tick(point: Timepoint, timed: bool) -> str:
    return f"{point.years:.1f}\n{point.label}" if timed else point.label
