"""Lesions and anomaly map of the subject page: the whole brain, so that what was missed shows too.

Both figures have the same slices: some evenly spaced over the brain, whatever was found there, and
those through the largest lesions that lie between them. A lesion has the number that it has in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bids_wmh_uad.reports.figures.labels import MAX_LESION_ROWS, Label, anchor
from bids_wmh_uad.reports.figures.mosaic import (
    AXIAL,
    PAGE_WIDTH,
    CanonicalVolume,
    crop,
    cut,
    data_uri,
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

    from numpy.typing import NDArray

    from bids_wmh_uad.reports.figures.mosaic import Box, ImageLike

MAX_PANELS = 24
"""Largest number of slices in a figure: four rows."""
LESION_PANELS = 6
"""Largest number of slices among them that are chosen for the lesions between the others."""
NO_LESION = "no lesion found"
"""Notice on the figure of a session without lesions."""
LESION_COLOUR, THRESHOLD_COLOUR, REJECTED_COLOUR = "#ff3b30", "#2ee6e6", "#4da3ff"
"""Colours of outlines, told apart on grey."""
COLOUR_MAP = "inferno"
"""Name of matplotlib's colour map of anomaly scores: its brightness rises evenly."""
NUMBER_NAME = "{what} {number}, slice {slice}, z = {z:.0f} mm"
"""What a number in the figure says; the page reads the slice from it."""
EVERY = "All {total} axial slices of the brain"
EVENLY = "{even} of the brain's {total} axial slices, evenly spaced"
CHOSEN = ", and {added} through the largest lesions between them"
"""Heading: which slices are shown; the last where lesions chose slices too."""
COUNTED = "{colour}: {what}, {count} in all{volume}, {drawn} of them in these slices"
"""A line of the heading on what is outlined."""


class Numbered(Enum):
    """What has numbers in the figure, and a table on the page: its name, and the kinds of `anchor` of its number and of its row."""

    LESION = ("lesion", "lesion", "row")
    REJECTED = ("rejected candidate", "candidate", "rejected")


@dataclass(frozen=True)
class Slices:
    """Axial slices of a canonical volume that show the whole brain.

    Attributes
    ----------
    even, added : tuple of int
        Evenly spaced ones, and those chosen for lesions between them.
    total : int
        How many slices the brain has.
    """

    even: tuple[int, ...]
    added: tuple[int, ...]
    total: int

    @property
    def all(self) -> list[int]:
        """All that are shown, from the bottom to the top."""
        return sorted(self.even + self.added)

    @property
    def heading(self) -> str:
        """Which slices these are, in words."""
        counts = {"even": len(self.even), "added": len(self.added), "total": self.total}
        text = EVERY if len(self.even) == self.total else EVENLY + (CHOSEN if self.added else "")
        return text.format(**counts)


def choose_slices(labels: NDArray[np.int32], brain: NDArray[np.bool_]) -> Slices:
    """Choose at most `MAX_PANELS` slices: the whole brain, and for the largest lesions between them their largest area.

    Parameters
    ----------
    labels : ndarray, shape (i, j, k)
        Lesions by number, 0 elsewhere.
    brain : ndarray, shape (i, j, k)
    """
    extent = crop(brain, np.ones(3), margin_mm=0)[AXIAL]
    total = extent.stop - extent.start
    if total <= MAX_PANELS:
        return Slices(tuple(range(extent.start, extent.stop)), (), total)
    even, added = spread_indices(extent, MAX_PANELS - LESION_PANELS, trim=0.03), list[int]()
    shown = set(_numbers(labels[:, :, even]))
    areas = _areas(labels)
    for number in sorted(_numbers(labels), key=lambda one: -int(areas[one].sum())):
        if number not in shown and len(added) < LESION_PANELS:
            added.append(int(np.argmax(areas[number])))
            shown.update(_numbers(labels[:, :, added[-1]]))
    return Slices(tuple(even), tuple(added), total)


def _numbers(labels: NDArray[np.int32]) -> list[int]:
    """Numbers of the structures in an image."""
    return [int(number) for number in np.unique(labels) if number > 0]


def _label_image(scan: CanonicalVolume) -> NDArray[np.int32]:
    return np.rint(scan.data).astype(np.int32)


def _areas(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Voxels of each structure in each axial slice, shape (largest number + 1, slices)."""
    planes = [
        np.bincount(plane.ravel(), minlength=int(labels.max()) + 1) for plane in np.moveaxis(labels, 2, 0)
    ]
    return np.stack(planes, axis=1)


def _of_slice(
    scan: CanonicalVolume,
    labels: NDArray[np.int32],
    homes: NDArray[np.intp],
    k: int,
    box: Box,
    prefix: str,
    kind: Numbered,
) -> list[Label]:
    """Numbers of what a slice has, the largest first; an anchor is in its home, where it is largest."""
    what, place, row = kind.value
    plane = cut(labels, AXIAL, k, box)
    centre = [(box[0].start + box[0].stop - 1) / 2, (box[1].start + box[1].stop - 1) / 2, k]
    marks = [
        Label(
            number,
            plane == number,
            NUMBER_NAME.format(what=what, number=number, slice=k, z=scan.world(centre, AXIAL)),
            id=anchor(prefix, place, number) if homes[number] == k else "",
            link=anchor(prefix, row, number) if number <= MAX_LESION_ROWS and prefix else "",
            quiet=kind is Numbered.REJECTED,
        )
        for number in _numbers(plane)
    ]
    return sorted(marks, key=lambda mark: -int(mark.mask.sum()))


def _counted(
    colour: str, what: str, labels: NDArray[np.int32], slices: Sequence[int], volume: str = ""
) -> str:
    count, drawn = len(_numbers(labels)), len(_numbers(labels[:, :, slices]))
    return COUNTED.format(colour=colour, what=what, count=count, volume=volume, drawn=drawn)


def plot_lesions(
    flair: ImageLike,
    lesions: ImageLike,
    out: str | PathLike[str],
    *,
    mask: ImageLike | None = None,
    rejected: ImageLike | None = None,
    prefix: str = "",
) -> Path:
    """Draw numbered lesion outlines on axial FLAIR slices of the whole brain.

    What was found and not taken for a lesion is outlined in a second colour, with a smaller number where there is room.

    Parameters
    ----------
    flair, lesions : path or nibabel image
        On the same grid; `lesions` is a label image (a mask is one lesion).
    out : path
        SVG to write.
    mask : path or nibabel image, optional
        Brain mask, for slices, crop and grey levels; guessed from the FLAIR if not given.
    rejected : path or nibabel image, optional
        Label image of the rejected candidates.
    prefix : str
        Start of the session's file names, for the links between the figure and the table; none without.

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
    found = dict(zip(given, others, strict=True))
    labels = _label_image(first)
    turned_down = _label_image(found["rejected"]) if rejected is not None else np.zeros_like(labels)
    brain = found["mask"].data > 0.5 if mask is not None else foreground(scan)
    chosen = choose_slices(labels, brain)
    slices = chosen.all
    box = crop(brain | (labels > 0), scan.zooms, margin_mm=4)
    grey = grey_levels(scan.data, brain)
    numbered = [
        (volume, np.asarray(slices)[np.argmax(_areas(volume[:, :, slices]), axis=1)], kind)
        for volume, kind in ((labels, Numbered.LESION), (turned_down, Numbered.REJECTED))
    ]
    outlines = [(REJECTED_COLOUR, turned_down > 0), (LESION_COLOUR, labels > 0)]
    panels = [
        panel(scan, [grey], AXIAL, k, box, outlines, [
            label for volume, homes, kind in numbered for label in _of_slice(scan, volume, homes, k, box, prefix, kind)
        ])
        for k in slices
    ]  # fmt: skip
    heading = [chosen.heading]
    if labels.any():
        volume = f" ({(labels > 0).sum() * scan.voxel_ml:.2f} mL)"
        heading.append(_counted("Red, with its number in the table", "lesions", labels, slices, volume))
    if turned_down.any():
        heading.append(
            _counted("Blue, with numbers of their own", "candidates that were rejected", turned_down, slices)
        )
    notice = "" if labels.any() else NO_LESION
    return write_mosaic(in_rows(panels), out, "\n".join(heading), notice=notice)


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


def score_range(scores: NDArray[np.float32], threshold: float) -> tuple[float, float]:
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
    """Draw the anomaly map over the FLAIR, on the slices of `plot_lesions`.

    Parameters
    ----------
    flair, anomaly : path or nibabel image
        On the same grid; a larger anomaly is more abnormal.
    threshold : float
        Operating point, in the anomaly map's unit: marked in the colour bar, outlined in the slices.
    out : path
        SVG to write.
    lesions : path or nibabel image, optional
        Label image that adds slices, as in `plot_lesions`.
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
    labels = _label_image(load_together(flair, lesions)[1]) if lesions is not None else above.astype(np.int32)
    crop_mask = brain if mask is not None else foreground(scan)
    chosen = choose_slices(labels, crop_mask)
    slices = chosen.all
    box = crop(crop_mask | (labels > 0), scan.zooms, margin_mm=4)
    low, high = score_range(scores.data[brain], threshold)
    grey = grey_levels(scan.data, crop_mask)[..., None]
    share = np.clip((scores.data - low) / (high - low), 0, 1)
    weight = np.where(brain, np.minimum(share * 1.6, 0.8), 0)[..., None].astype(np.float32)
    blend = np.empty((*scan.data.shape, 3), dtype=np.uint8)
    for k in slices:
        blend[:, :, k] = grey[:, :, k] * (1 - weight[:, :, k]) + _colour(share[:, :, k]) * weight[:, :, k]
    panels = [panel(scan, [blend], AXIAL, k, box, [(THRESHOLD_COLOUR, above)]) for k in slices]
    heading = f"Anomaly map, outlined where it exceeds the threshold. {chosen.heading}"
    return write_mosaic(in_rows(panels), out, heading, footer=_colour_bar(low, high, threshold))
