"""Readers of what a session's page shows besides its summary: lesion table, model card."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from bids_wmh_uad.reading import MAX_TABLE_BYTES, read_text

MAX_LESION_ROWS = 10
"""Largest number of rows of the page's lesion table; the file has all."""


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
