"""Readers of what a session's page shows besides its summary: lesion table, model card."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from bids_wmh_uad.reading import MAX_TABLE_BYTES, read_bytes, read_text
from bids_wmh_uad.reports.figures.labels import MAX_LESION_ROWS, anchor
from bids_wmh_uad.reports.inlining import MAX_FIGURE_BYTES
from bids_wmh_uad.reports.pages import MISSING, as_number

DRAWN = re.compile(
    r'<g id="([\w+-]+)"(?:><a href="[^"]*"| role="img") aria-label="[a-z ]+ (\d+), slice (\d+),'
)
"""Pattern of a number in the figure: its anchor, the number, and the slice."""


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table; none if it cannot be read."""
    try:
        text = StringIO(read_text(path, MAX_TABLE_BYTES), newline="")
        return list(csv.DictReader(text, delimiter="\t"))
    except (OSError, ValueError, csv.Error):
        return []


@dataclass(frozen=True)
class Listing:
    """Lesions, or rejected candidates, of a session: what the page's table has of them.

    Attributes
    ----------
    rows : tuple of dict
        Of the session's table, the largest.
    total : int
        How many that has.
    drawn : mapping of str to str
        In which slice the figure has a number.
    """

    rows: tuple[dict[str, str], ...] = ()
    total: int = 0
    drawn: Mapping[str, str] = field(default_factory=dict)


def read_listing(summary: Path, suffix: str, name: str, figure: Path, kind: str) -> Listing:
    """Read what the page says of a session's lesions or rejected candidates.

    Parameters
    ----------
    summary : Path
        Of the session.
    suffix : str
        End of the summary's name.
    name : {"lesions", "rejected"}
    figure : Path
        Where they are drawn.
    kind : str
        Of the anchors there: ``lesion`` or ``candidate``.
    """
    prefix = str(summary).removesuffix(suffix)
    rows = read_table(Path(f"{prefix}_space-FLAIR_desc-{name}_dseg.tsv"))
    return Listing(tuple(rows[:MAX_LESION_ROWS]), len(rows), read_drawn(figure, Path(prefix).name, kind))


def read_drawn(figure: Path, prefix: str, kind: str = "lesion") -> dict[str, str]:
    """Slices in which the figure of the lesions has their numbers, by number.

    Parameters
    ----------
    figure : Path
    prefix : str
        Start of the session's file names: anchors of another session are not taken.
    kind : str
        Of the anchors: ``lesion``, or ``candidate`` for the rejected ones.
    """
    try:
        text = read_bytes(figure, MAX_FIGURE_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    found = DRAWN.findall(text)
    return {number: at for name, number, at in found if name == anchor(prefix, kind, int(number))}


def read_card(model: dict[str, Any] | None, directory: Path | None) -> str:
    """Model card of a session's model, if it is at hand: the same weights, under this directory or shipped.

    Parameters
    ----------
    model : dict or None
        ``name`` and ``digest`` from the summary.
    directory : Path or None
        The run's ``--model``, where it is a directory.
    """
    from bids_wmh_uad.errors import WmhUadError
    from bids_wmh_uad.models import model_digest, model_directory

    if not isinstance(model, dict):
        return ""
    for candidate in (directory, model.get("name")):
        try:
            if (
                isinstance(candidate, str | Path)
                and candidate
                and model_digest(candidate) == model.get("digest")
            ):
                return read_text(model_directory(candidate) / "README.md").strip()
        except (WmhUadError, OSError, UnicodeDecodeError):
            continue
    return ""


INPUT_COLUMNS: dict[str, tuple[str, str]] = {
    "voxel_size_mm": ("voxel size", "mm"),
    "matrix": ("matrix", ""),
    "MagneticFieldStrength": ("field", "T"),
    "Manufacturer": ("manufacturer", ""),
    "ManufacturersModelName": ("scanner", ""),
    "RepetitionTime": ("TR", "s"),
    "EchoTime": ("TE", "s"),
    "InversionTime": ("TI", "s"),
    "FlipAngle": ("flip angle", "°"),
}
"""What the page's table of inputs says after each file: keys of the summary, their titles and units."""


@dataclass(frozen=True)
class Inputs:
    """The table of a session's raw scans: only columns that at least one of them has.

    Attributes
    ----------
    titles : tuple of str
    rows : tuple of (str, str, tuple of str)
        Contrast, file, and a text for each title.
    """

    titles: tuple[str, ...] = ()
    rows: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


def list_inputs(summary: Mapping[str, Any]) -> Inputs:
    """The table of inputs of a session's summary; empty if that says nothing, as before this version."""
    listed = summary.get("inputs")
    scans = {
        str(contrast): scan
        for contrast, scan in (listed if isinstance(listed, dict) else {}).items()
        if isinstance(scan, dict)
    }
    keys = [
        key for key in INPUT_COLUMNS if any(scan.get(key) not in (None, "", []) for scan in scans.values())
    ]
    titles = [", ".join(filter(None, INPUT_COLUMNS[key])) for key in keys]
    rows = [
        (
            contrast,
            str(scan.get("file", MISSING)).removeprefix("bids:raw:"),
            tuple(_setting(scan.get(key)) for key in keys),
        )
        for contrast, scan in scans.items()
    ]
    return Inputs(tuple(titles), tuple(rows))


def _setting(value: object) -> str:
    """Text of a setting: ``1 × 1 × 3`` for a list."""
    if isinstance(value, list):
        return " \N{MULTIPLICATION SIGN} ".join(_setting(item) for item in value)
    if value is None or isinstance(value, str):
        return value or MISSING
    number = as_number(value)
    return str(value) if number is None else f"{number:.5g}"
