"""Numbers beside what is outlined in a panel: near it, over nothing, and links to a table's row and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_LESION_ROWS = 100
"""Largest number of rows of the page's lesion table, to which numbers lead; the file has all."""
DIGIT_WIDTH, TEXT_HEIGHT = 7.0, 11.0
"""Room that a number takes, SVG units: the width of each digit, and the height."""
DISTANCES = (2.0, 9.0, 18.0, 28.0)
"""Distances from what is numbered that are tried, SVG units; from the second on a line leads to the number."""
DIRECTIONS = ((1, -1), (-1, -1), (1, 1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))
"""Where a number may stand, in this order: to the right (1) and below (1), or to the left and above."""
ODD = re.compile(r"[^0-9A-Za-z_+-]")
"""Pattern of characters that are left out of anchors."""


def anchor(prefix: str, kind: str, number: int) -> str:
    """Id of a place on the page: a lesion's ``row`` in the table, or ``lesion`` in the figure; a candidate's ``rejected`` and ``candidate``."""
    return f"{ODD.sub('', prefix)}-{kind}-{number}"


@dataclass(frozen=True)
class Label:
    """A number for a panel.

    Attributes
    ----------
    number : int
    mask : ndarray, shape (rows, columns)
        What is numbered, in display orientation; not empty.
    name : str
        What a screen reader says of it.
    id : str
        Its anchor; empty where another panel has it. Such a number is drawn even where there is no free place.
    link : str
        Anchor of the place that it leads to; empty for none.
    quiet : bool
        It is drawn after the others, smaller, and only where there is a free place right beside what it numbers.
    """

    number: int
    mask: NDArray[np.bool_]
    name: str
    id: str = ""
    link: str = ""
    quiet: bool = False


def draw_labels(
    labels: Sequence[Label], taken: Sequence[NDArray[np.bool_]], width: float, height: float
) -> str:
    """Numbers as an SVG fragment for a panel of `width` x `height` units.

    Parameters
    ----------
    labels : sequence of Label
        The first has the first choice of its place.
    taken : sequence of ndarray, shape (rows, columns)
        What must not be covered.
    """
    if not labels:
        return ""
    page = _canvas(taken, width, height)
    parts = []
    for label in sorted(labels, key=lambda one: (one.quiet, not one.id)):
        box = _bounds(label.mask, width, height)
        size = DIGIT_WIDTH * len(str(label.number)) + 1, TEXT_HEIGHT
        distances = DISTANCES[:1] if label.quiet else DISTANCES
        places = [
            _place(box, size, direction, distance) for distance, direction in product(distances, DIRECTIONS)
        ]
        covered = [_covered(page, place, size) for place in places]
        best = int(np.argmin(covered))
        if covered[best] > 0 and (label.quiet or not label.id):
            continue
        left, top = places[best]
        page[_window(left, top, size)] = True
        leader = "" if best < len(DIRECTIONS) else _leader(box, left, top, size)
        parts.append(leader + _text(label, left, top + size[1] - 1.5))
    return "".join(parts)


def _canvas(taken: Sequence[NDArray[np.bool_]], width: float, height: float) -> NDArray[np.bool_]:
    """Which units of a panel are not free: what is outlined, the names of the sides, and the caption."""
    page = np.zeros((int(height) + 1, int(width) + 1), dtype=bool)
    for mask in taken:
        rows = np.minimum(np.arange(page.shape[0]) * mask.shape[0] / height, mask.shape[0] - 1).astype(int)
        columns = np.minimum(np.arange(page.shape[1]) * mask.shape[1] / width, mask.shape[1] - 1).astype(int)
        page |= mask[np.ix_(rows, columns)]
    page[:16, :14] = page[:16, -14:] = page[-18:, :150] = True
    return page


def _bounds(mask: NDArray[np.bool_], width: float, height: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mask in a panel, SVG units."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    across, down = width / mask.shape[1], height / mask.shape[0]
    return columns[0] * across, rows[0] * down, (columns[-1] + 1) * across, (rows[-1] + 1) * down


def _place(
    box: tuple[float, float, float, float],
    size: tuple[float, float],
    direction: tuple[int, int],
    distance: float,
) -> tuple[float, float]:
    """Left and top of a number beside a box."""
    left, top, right, bottom = box
    x = {1: right + distance, -1: left - distance - size[0], 0: (left + right - size[0]) / 2}[direction[0]]
    y = {1: bottom + distance, -1: top - distance - size[1], 0: (top + bottom - size[1]) / 2}[direction[1]]
    return x, y


def _window(left: float, top: float, size: tuple[float, float]) -> tuple[slice, slice]:
    return slice(int(top), int(top + size[1]) + 1), slice(int(left), int(left + size[0]) + 1)


def _covered(page: NDArray[np.bool_], place: tuple[float, float], size: tuple[float, float]) -> float:
    """How much a number at a place would cover; more than all where it leaves the panel."""
    rows, columns = _window(*place, size)
    inside = min(place) >= 0 and rows.stop <= page.shape[0] and columns.stop <= page.shape[1]
    return float(page[rows, columns].sum()) if inside else float(page.size)


def _leader(
    box: tuple[float, float, float, float], left: float, top: float, size: tuple[float, float]
) -> str:
    """Draw a line from the number to the nearest point of the box."""
    x, y = left + size[0] / 2, top + size[1] / 2
    end = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
    start = min(max(end[0], left), left + size[0]), min(max(end[1], top), top + size[1])
    return f'<path class="wmh-leader" d="M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"/>'


def _text(label: Label, left: float, base: float) -> str:
    kind = "wmh-number wmh-quiet" if label.quiet else "wmh-number"
    text = f'<text class="{kind}" x="{left:.1f}" y="{base:.1f}">{label.number}</text>'
    name = f' role="img" aria-label="{escape(label.name)}"' if not label.link else ""
    if label.link:
        text = f'<a href="#{label.link}" aria-label="{escape(label.name)}">{text}</a>'
    return f"<g{f' id={chr(34)}{label.id}{chr(34)}' if label.id else ''}{name}>{text}</g>"
