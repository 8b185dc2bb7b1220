"""Readers of what a session's page shows besides its summary: lesion table, model card."""

from __future__ import annotations

import csv
import re
from io import StringIO
from pathlib import Path
from typing import Any

from bids_wmh_uad.reading import MAX_TABLE_BYTES, read_bytes, read_text
from bids_wmh_uad.reports.figures.labels import MAX_LESION_ROWS, anchor
from bids_wmh_uad.reports.inlining import MAX_FIGURE_BYTES

DRAWN_LESION = re.compile(
    r'<g id="([\w+-]+)"(?:><a href="[^"]*"| role="img") aria-label="lesion (\d+), slice (\d+),'
)
"""Pattern of a lesion's number in the figure: its anchor, the number, and the slice."""


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table; none if it cannot be read."""
    try:
        text = StringIO(read_text(path, MAX_TABLE_BYTES), newline="")
        return list(csv.DictReader(text, delimiter="\t"))
    except (OSError, ValueError, csv.Error):
        return []


def read_lesions(summary: Path, suffix: str) -> tuple[list[dict[str, str]], int]:
    """Read the largest lesions of the session whose summary this is, and how many there are in all."""
    prefix = str(summary).removesuffix(suffix)
    rows = read_table(Path(f"{prefix}_space-FLAIR_desc-lesions_dseg.tsv"))
    return rows[:MAX_LESION_ROWS], len(rows)


def read_drawn(figure: Path, prefix: str) -> dict[str, str]:
    """Slices in which the figure of the lesions has their numbers, by number.

    Parameters
    ----------
    figure : Path
    prefix : str
        Start of the session's file names: anchors of another session are not taken.
    """
    try:
        text = read_bytes(figure, MAX_FIGURE_BYTES).decode("utf-8", "replace")
    except OSError:
        return {}
    found = DRAWN_LESION.findall(text)
    return {number: at for name, number, at in found if name == anchor(prefix, "lesion", int(number))}


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
