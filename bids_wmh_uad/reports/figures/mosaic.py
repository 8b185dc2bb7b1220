"""Mosaics of brain slices as self-contained SVG.

A panel is one slice: a JPEG at the resolution of the scan, with outlines and text
as vectors above it. That keeps a page of dozens of panels small, its lines sharp
at any zoom, and lets the reader hide outlines or flicker between two images by
hovering, without scripts.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.errors import GRID_MISMATCH, GridMismatchError
from bids_wmh_uad.files import write_text
from bids_wmh_uad.images import read_image
from bids_wmh_uad.reports.figures.labels import Label, draw_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import TypeAlias

    from numpy.typing import NDArray

    ImageLike: TypeAlias = "str | PathLike[str] | Any"  # a path or a nibabel image
    Box: TypeAlias = tuple[slice, slice, slice]

PROLOG = '<?xml version="1.0" encoding="UTF-8"?>\n'
"""First line of an SVG file."""
PAGE_WIDTH = 1200
"""Width of a mosaic, SVG units."""
PANEL_COLUMNS = 6
"""Number of panels in a full row."""
PANEL_GAP = 4
"""Room between panels, SVG units."""
HEADING_HEIGHT, LINE_HEIGHT = 26, 20
"""Height of the heading, and of each further line of it, SVG units."""
MAX_PANEL_PIXELS = 248
"""Largest width or height of a panel's image, pixels: it bounds the size of a page."""
AXIAL, CORONAL, SAGITTAL = 2, 1, 0
"""Axis across the slices of each view, in canonical (RAS) order."""
MARGIN_LABELS = {AXIAL: ("L", "R"), CORONAL: ("L", "R"), SAGITTAL: ("P", "A")}
"""Anatomical names of a panel's left and right margin, by view."""
STYLE = """
.wmh-mosaic{background:#000;font-family:Helvetica,Arial,sans-serif}
.wmh-mosaic text{fill:#fff;font-size:13px;paint-order:stroke;stroke:#000;stroke-width:2px}
.wmh-mosaic .wmh-heading{font-size:15px;stroke:none}
.wmh-mosaic .wmh-notice{font-size:20px;fill:#7ee787}
.wmh-mosaic .wmh-number{font-size:12px;font-weight:bold;fill:#ffd54a}
.wmh-mosaic .wmh-number.wmh-quiet{font-size:11px;font-weight:normal;fill:#9ccbff}
.wmh-mosaic a:hover .wmh-number,.wmh-mosaic a:focus .wmh-number,.wmh-mosaic :target .wmh-number{fill:#fff;stroke:#b3261e;stroke-width:5px}
.wmh-leader{stroke:#ffd54a;stroke-width:.8px;fill:none}
.wmh-outline{fill:none;stroke-width:1.2px;stroke-linejoin:round}
.wmh-panel:hover .wmh-outline{opacity:0}
.wmh-top{opacity:0}
.wmh-flicker:hover .wmh-outline{opacity:1}
.wmh-flicker:hover .wmh-top{animation:wmh-blink 1.4s steps(1) infinite}
.wmh-flicker:hover .wmh-bottom{animation:wmh-blink 1.4s steps(1) -0.7s infinite}
@keyframes wmh-blink{0%{opacity:1}50%{opacity:0}}
""".replace("\n", "")
"""Style sheet of a mosaic: outlines hide, or two layers flicker, while hovered."""


@dataclass(frozen=True)
class CanonicalVolume:
    """A volume in the closest canonical (RAS) order of its own grid.

    Attributes
    ----------
    data : ndarray, shape (i, j, k)
        float32, finite; axes run to the right, to the front, and up.
    affine : ndarray, shape (4, 4)
        Voxel to world, mm.
    name : str
        How messages call it.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    name: str

    @property
    def zooms(self) -> NDArray[np.float64]:
        """Voxel sizes, mm."""
        zooms: NDArray[np.float64] = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return zooms

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def world(self, index: Sequence[float], axis: int) -> float:
        """World coordinate along `axis` of a voxel index, mm."""
        return float(self.affine[axis, :3] @ np.asarray(index, dtype=float) + self.affine[axis, 3])


@dataclass(frozen=True)
class Panel:
    """One slice to draw, in display orientation (first row at the top).

    Attributes
    ----------
    layers : tuple of ndarray
        uint8 images of shape (height, width) or (height, width, 3); a second one flickers above the first.
    size_mm : tuple of float
        Width and height, mm.
    outlines : tuple of (str, ndarray)
        Colour and boolean mask of what to outline.
    caption : str
        For example ``z = 12 mm``.
    sides : tuple of str
        Anatomical names of the left and right margin.
    labels : tuple of Label
        Numbers beside what is outlined.
    id : str
        Of its first layer on the page; none if empty.
    above : str
        `id` of an earlier panel whose first layer flickers above this one's.
    """

    layers: tuple[NDArray[np.uint8], ...]
    size_mm: tuple[float, float]
    outlines: tuple[tuple[str, NDArray[np.bool_]], ...]
    caption: str
    sides: tuple[str, str]
    labels: tuple[Label, ...] = ()
    id: str = ""
    above: str = ""


def load_canonical(image: ImageLike) -> CanonicalVolume:
    """Read one volume and turn it to canonical order, without resampling.

    Parameters
    ----------
    image : path or nibabel image
        3D, or 4D with one volume; any storage order; non-finite values become 0.

    Returns
    -------
    CanonicalVolume
    """
    import nibabel as nib

    name = "image" if hasattr(image, "affine") else str(image)
    loaded = image if hasattr(image, "affine") else read_image(Path(image))
    volume = nib.funcs.squeeze_image(loaded)
    canonical: Any = nib.as_closest_canonical(volume)
    data = np.nan_to_num(np.asarray(canonical.dataobj, dtype=np.float32), posinf=0, neginf=0)
    return CanonicalVolume(data, np.asarray(canonical.affine, dtype=float), name)


def load_together(*images: ImageLike) -> tuple[CanonicalVolume, ...]:
    """Read volumes that must share a grid.

    Returns
    -------
    tuple of CanonicalVolume

    Raises
    ------
    GridMismatchError
        If shape or affine of one differs from the first's.
    """
    scans = tuple(load_canonical(image) for image in images)
    first = scans[0]
    for scan in scans[1:]:
        detail = ""
        if scan.data.shape != first.data.shape:
            detail = f"{first.data.shape} and {scan.data.shape}"
        elif not np.allclose(scan.affine, first.affine, atol=1e-2):
            detail = "the affines differ"
        if detail:
            raise GridMismatchError(GRID_MISMATCH.format(first=first.name, second=scan.name, detail=detail))
    return scans


def foreground(scan: CanonicalVolume) -> NDArray[np.bool_]:
    """Rough mask of what is not air: above a quarter of the 95th percentile of the non-zero values."""
    values = scan.data[scan.data > 0]
    level = 0.25 * float(np.percentile(values, 95)) if values.size else 0.0
    mask: NDArray[np.bool_] = scan.data > level
    return mask if mask.any() else np.ones_like(mask)


def crop(mask: NDArray[np.bool_], zooms: NDArray[np.float64], margin_mm: float) -> Box:
    """Bounding box of a mask, widened by a margin; the whole grid for an empty mask."""
    sides = []
    for axis, zoom in enumerate(zooms):
        others = tuple(other for other in range(3) if other != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        if hits.size == 0:
            sides.append(slice(0, mask.shape[axis]))
            continue
        margin = int(np.ceil(margin_mm / zoom))
        sides.append(slice(max(int(hits[0]) - margin, 0), min(int(hits[-1]) + 1 + margin, mask.shape[axis])))
    return sides[0], sides[1], sides[2]


def spread_indices(extent: slice, count: int, trim: float = 0.12) -> list[int]:
    """`count` indices evenly spread over an extent, its ends trimmed; fewer on a short extent."""
    length = extent.stop - extent.start
    inner = np.linspace(extent.start + trim * length, extent.stop - 1 - trim * length, count)
    return [int(index) for index in np.unique(inner.round().astype(int))]


def grey_levels(data: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Grey levels for display: the 1st to 99.7th percentile within the mask spans black to white."""
    values = data[mask]
    low, high = np.percentile(values, (1, 99.7)) if values.size else (0.0, 1.0)
    scaled = (data - low) / max(float(high - low), 1e-6)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def cut(data: NDArray[Any], axis: int, index: int, box: Box) -> NDArray[Any]:
    """One slice of a canonical volume in display orientation: up is up (or front), right is right."""
    within = tuple(index if side == axis else box[side] for side in range(3))
    return np.ascontiguousarray(np.swapaxes(data[within], 0, 1)[::-1])


def panel(
    scan: CanonicalVolume,
    layers: Sequence[NDArray[np.uint8]],
    axis: int,
    index: int,
    box: Box,
    outlines: Sequence[tuple[str, NDArray[np.bool_]]] = (),
    labels: Sequence[Label] = (),
) -> Panel:
    """Cut one panel out of display volumes on a scan's grid; `labels` are those of this slice, cut already."""
    centre = [index if side == axis else (box[side].start + box[side].stop - 1) / 2 for side in range(3)]
    across = [
        (box[side].stop - box[side].start) * float(scan.zooms[side]) for side in range(3) if side != axis
    ]
    return Panel(
        layers=tuple(cut(layer, axis, index, box) for layer in layers),
        size_mm=(across[0], across[1]),
        outlines=tuple((colour, cut(mask, axis, index, box)) for colour, mask in outlines),
        caption=f"{'xyz'[axis]} = {scan.world(centre, axis):.0f} mm, slice {index}",
        sides=MARGIN_LABELS[axis],
        labels=tuple(labels),
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode pixels as a JPEG data URI, at most `MAX_PANEL_PIXELS` in either direction."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((MAX_PANEL_PIXELS, MAX_PANEL_PIXELS))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=70, optimize=True, subsampling=0)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode("ascii")


def outline_path(mask: NDArray[np.bool_], width: float, height: float) -> str:
    """Outline of a mask as SVG path data that fills a box of the given size; empty for an empty mask."""
    from contourpy import contour_generator

    if not mask.any():
        return ""
    rows, columns = mask.shape
    padded = np.pad(mask.astype(np.float32), 1)
    lines = contour_generator(z=padded).lines(0.5)
    scale = np.array([width / columns, height / rows])
    parts = []
    for line in lines:
        points = (np.asarray(line) - 0.5) * scale
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z")
    return "".join(parts)


def in_rows(panels: Sequence[Panel]) -> list[Sequence[Panel]]:
    """Panels in full rows, and what is left."""
    return [panels[start : start + PANEL_COLUMNS] for start in range(0, len(panels), PANEL_COLUMNS)]


def _draw(item: Panel, left: float, top: float, scale: float) -> str:
    width, height = item.size_mm[0] * scale, item.size_mm[1] * scale
    roles = ["wmh-bottom", "wmh-top"] if item.above or len(item.layers) > 1 else [""]
    size = f'width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none"'
    names = [f'id="{item.id}" ' if item.id else "", ""]
    images = "".join(
        f'<image {name}class="{role}" {size} href="{data_uri(layer)}"/>'
        for name, role, layer in zip(names, roles, item.layers, strict=False)
    )
    if item.above:
        images += f'<use class="wmh-top" href="#{item.above}"/>'
    paths = "".join(
        f'<path class="wmh-outline" stroke="{colour}" d="{path}"/>'
        for colour, mask in item.outlines
        if (path := outline_path(mask, width, height))
    )
    texts = (
        f'<text x="4" y="{height - 5:.1f}">{escape(item.caption)}</text>'
        f'<text x="3" y="13">{item.sides[0]}</text>'
        f'<text x="{width - 3:.1f}" y="13" text-anchor="end">{item.sides[1]}</text>'
    )
    numbers = draw_labels(item.labels, [mask for _, mask in item.outlines], width, height)
    place = f"translate({left:.1f} {top:.1f})"
    return f'<g class="wmh-panel" transform="{place}">{images}{paths}{texts}{numbers}</g>'


def write_mosaic(
    rows: Sequence[Sequence[Panel]],
    out: str | PathLike[str],
    heading: str,
    *,
    columns: int = PANEL_COLUMNS,
    notice: str = "",
    names: tuple[str, str] | None = None,
    footer: tuple[str, float] = ("", 0.0),
) -> Path:
    """Write rows of panels, all at one scale, as an SVG.

    Parameters
    ----------
    rows : sequence of sequences of Panel
        The widest row fills the page, unless it is shorter than `columns`.
    out : path
        Parent directories are made; the file appears whole or not at all.
    columns : int
        How many panels a full row has, so that a few panels are not blown up.
    heading, notice : str
        Text above the panels, in lines; the notice is set off in green.
    names : (str, str), optional
        Names of the two layers; the figure then flickers between them while hovered.
    footer : (str, float)
        SVG fragment below the panels, and its height.

    Returns
    -------
    Path
        `out`.
    """
    widest = max(sum(item.size_mm[0] for item in row) for row in rows)
    across = max(len(row) for row in rows)
    if across < columns:
        widest, across = widest * columns / across, columns
    scale = (PAGE_WIDTH - PANEL_GAP * (across + 1)) / widest
    lines = heading.split("\n")
    top = float(HEADING_HEIGHT + LINE_HEIGHT * (len(lines) - 1))
    body = [
        f'<text class="wmh-heading" x="{PANEL_GAP}" y="{18 + LINE_HEIGHT * number}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    if notice:
        body.append(f'<text class="wmh-notice" x="{PANEL_GAP}" y="{top + 20:.0f}">{escape(notice)}</text>')
        top += 30
    if names:
        for role, name in zip(("wmh-bottom", "wmh-top"), names, strict=True):
            attributes = f'class="wmh-heading {role}" x="{PAGE_WIDTH - PANEL_GAP}" y="18" text-anchor="end"'
            body.append(f"<text {attributes}>{escape(name)}</text>")
    for row in rows:
        left = float(PANEL_GAP)
        for item in row:
            body.append(_draw(item, left, top, scale))
            left += item.size_mm[0] * scale + PANEL_GAP
        top += max(item.size_mm[1] for item in row) * scale + PANEL_GAP
    body.append(f'<g transform="translate(0 {top:.1f})">{footer[0]}</g>')
    role = "wmh-mosaic wmh-flicker" if names else "wmh-mosaic"
    # nireports drops every width and height from the line that opens the SVG: end that line with the tag.
    svg = (
        f'{PROLOG}<svg xmlns="http://www.w3.org/2000/svg" class="{role}" viewBox="0 0 {PAGE_WIDTH} {top + footer[1]:.0f}"'
        f' role="img" aria-label="{escape(lines[0])}">\n<style>{STYLE}</style>'
        f'<rect class="wmh-background" width="100%" height="100%" fill="#000"/>{"".join(body)}</svg>\n'
    )
    return write_text(Path(out), svg)
