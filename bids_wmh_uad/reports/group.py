"""The group page: the cohort's volumes, its tables, the evaluation and the prevalence map in one HTML file.

Everything that can be read is plain HTML; ``specs/group.js`` draws the plots and sorts the tables
from the JSON that the page carries. Nothing is fetched: the page opens from disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from bids_wmh_uad.files import write_text
from bids_wmh_uad.reports.evaluation import MIN_FOR_QUARTILES, evaluation_context
from bids_wmh_uad.reports.figures.prevalence import draw_prevalence
from bids_wmh_uad.reports.pages import as_number, embed, is_missing, render, specs_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import TypeAlias

    Records: TypeAlias = Sequence[Mapping[str, Any]]

VOLUME_COLUMN = "wmh_volume_ml"
"""Name of the column that every successful session has."""
TABLE_COLUMNS: dict[str, tuple[str, str, int]] = {
    "participant_id": ("participant", "", 0),
    "session_id": ("session", "", 0),
    "status": ("status", "", 0),
    VOLUME_COLUMN: ("WMH volume", "mL", 2),
    "reference_volume_ml": ("reference volume", "mL", 2),
    "wmh_percent_icv": ("WMH, % of intracranial volume", "%", 3),
    "lesion_count": ("lesions", "", 0),
    "largest_lesion_ml": ("largest lesion", "mL", 2),
    "icv_ml": ("intracranial volume", "mL", 0),
    "rejected_count": ("rejected candidates", "", 0),
    "volume_ml_lower": ("WMH volume, lower end", "mL", 2),
    "volume_ml_upper": ("WMH volume, upper end", "mL", 2),
    "volume_ml_threshold_minus20": ("WMH volume at 0.8 of the threshold", "mL", 2),
    "volume_ml_threshold_plus20": ("WMH volume at 1.2 of the threshold", "mL", 2),
    "unstable_volume": ("volume hangs on the threshold", "", 0),
    "threshold": ("threshold", "", 4),
    "threshold_rule": ("threshold rule", "", 0),
    "score": ("score", "", 0),
    "paradigm": ("paradigm", "", 0),
    "model": ("model", "", 0),
    "registration_overlap": ("registration overlap (Dice)", "", 3),
    "warnings": ("warnings", "", 0),
    "dice": ("Dice", "", 3),
    "h95_mm": ("95th percentile Hausdorff distance", "mm", 1),
    "avd_percent": ("absolute volume difference", "%", 1),
    "lesion_recall": ("lesion recall", "", 3),
    "lesion_precision": ("lesion precision", "", 3),
    "lesion_f1": ("lesion F1", "", 3),
    "ap": ("average precision", "", 3),
    "auroc": ("AUROC", "", 4),
    "auroc30": ("AUROC up to 30 % FPR", "", 4),
    "aupro": ("AUPRO", "", 4),
    "aupro30": ("AUPRO up to 30 % FPR", "", 4),
    "best_dice": ("best Dice over thresholds", "", 3),
    "best_threshold": ("threshold of the best Dice", "", 4),
    "brightness_ap": ("brightness: average precision", "", 3),
    "brightness_auroc": ("brightness: AUROC", "", 4),
    "brightness_aupro": ("brightness: AUPRO", "", 4),
    "brightness_best_dice": ("brightness: best Dice", "", 3),
    "baseline_ap": ("FLAIR z-score: average precision", "", 3),
    "baseline_auroc": ("FLAIR z-score: AUROC", "", 4),
    "baseline_aupro": ("FLAIR z-score: AUPRO", "", 4),
    "baseline_best_dice": ("FLAIR z-score: best Dice", "", 3),
}
"""Title, unit and decimals of the columns we know, in the order shown."""
TRAILING_COLUMNS = ("reason",)
"""Names of the columns shown after all others: long texts."""
OPTIONAL_COLUMNS = ("session_id", "reason")
"""Names of the columns that are left out where no session has a value."""
SKEWED_COLUMNS = (VOLUME_COLUMN, "lesion_count", "largest_lesion_ml", "reference_volume_ml")
"""Names of the columns drawn on a logarithmic axis until the reader says otherwise."""
MAX_GROUPS = 12
"""Largest number of groups that a column may split the plots into: more colours cannot be told apart."""
SIGNIFICANT_DIGITS = 6
"""Number of significant digits of what the page carries for the scripts."""
SCRIPTS = ("group_charts.js", "group.js")
"""Names of the page's scripts, in their order."""


def _records(table: Records | None) -> list[dict[str, Any]]:
    """Rows with texts and plain numbers only; missing cells become None."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in table or ()]


def _plain(value: object) -> str | float | int | None:
    if is_missing(value) or isinstance(value, str):
        return None if is_missing(value) else str(value)
    number = as_number(value)
    if number is None:
        return str(value)
    return int(number) if number == int(number) else float(f"{number:.{SIGNIFICANT_DIGITS}g}")


def _columns(records: Records) -> list[dict[str, Any]]:
    """Known columns first, then whatever else the rows hold."""
    present = list(dict.fromkeys(key for row in records for key in row))
    extra = [key for key in present if key not in TABLE_COLUMNS and key not in TRAILING_COLUMNS]
    order = [
        *(key for key in TABLE_COLUMNS if key in present),
        *extra,
        *(key for key in TRAILING_COLUMNS if key in present),
    ]
    columns = []
    for key in order:
        values = [row[key] for row in records if row.get(key) is not None]
        if not values and key in OPTIONAL_COLUMNS:
            continue
        numeric = (
            bool(values) and not key.endswith("_id") and all(as_number(value) is not None for value in values)
        )
        title, unit, digits = TABLE_COLUMNS.get(key, (key.replace("_", " "), "", _decimals(values)))
        columns.append({"key": key, "title": title, "unit": unit, "numeric": numeric, "digits": digits})
    return columns


def _decimals(values: Sequence[object]) -> int:
    """Decimals that a column of unknown numbers needs: none where all are whole."""
    numbers = [number for value in values if (number := as_number(value)) is not None]
    return 0 if all(number == int(number) for number in numbers) else 2


def _failed(row: Mapping[str, Any]) -> bool:
    """Whether a session failed: it says so, or it has no lesion volume."""
    return row.get("status") == "failed" or (VOLUME_COLUMN in row and as_number(row[VOLUME_COLUMN]) is None)


def _page(row: Mapping[str, Any], root: Path) -> str:
    """Relative link to the participant's page; empty if there is none."""
    participant = str(row.get("participant_id") or "").removeprefix("sub-")
    name = f"sub-{participant}.html"
    plain = participant and "/" not in participant and (root / name).is_file()
    return quote(os.fsencode(name)) if plain else ""


def _table(name: str, label: str, records: Records, root: Path) -> dict[str, Any]:
    """What the template needs to write a table."""
    columns = _columns(records)
    pages = {row.get("participant_id"): "" for row in records}
    for row in records:
        pages[row.get("participant_id")] = pages[row.get("participant_id")] or _page(row, root)
    rows = [
        {
            "cells": [_cell(row.get(column["key"]), column) for column in columns],
            "failed": _failed(row),
            "page": pages[row.get("participant_id")],
        }
        for row in records
    ]
    return {"name": name, "label": label, "columns": columns, "rows": rows}


def _cell(value: Any, column: Mapping[str, Any]) -> str:
    if value is None:
        return "n/a"
    return f"{float(value):.{column['digits']}f}" if column["numeric"] else str(value)


def _category(key: str, records: Records) -> bool:
    """Whether a column sorts the sessions into a few groups."""
    known = key in TABLE_COLUMNS or key in TRAILING_COLUMNS
    if known and key not in {"model", "paradigm", "score", "threshold_rule"}:
        return False
    values = [row[key] for row in records if row.get(key) is not None]
    whole = all(isinstance(value, str) or float(value).is_integer() for value in values)
    return whole and 2 <= len(set(values)) <= min(MAX_GROUPS, len(values) - 1)


def _data(sheet: Mapping[str, Any] | None, records: Records) -> dict[str, Any] | None:
    """A table's columns and values, as the scripts read them."""
    if sheet is None:
        return None
    columns = sheet["columns"]
    categories = [column["key"] for column in columns if _category(column["key"], records)]
    known = [column["key"] for column in columns if column["numeric"]]
    measures = [key for key in known if key in TABLE_COLUMNS or key not in categories]
    return {
        "columns": columns,
        "values": [[_value(row.get(column["key"]), column) for row in records] for column in columns],
        "categories": categories,
        "measures": measures,
        "skewed": [key for key in measures if key in SKEWED_COLUMNS or key.startswith("volume_ml")],
    }


def _value(value: Any, column: Mapping[str, Any]) -> Any:
    number = as_number(value)
    return _plain(number) if column["numeric"] and number is not None else value


def _script() -> str:
    """The page's script element's content."""
    with specs_directory() as directory:
        return "\n".join((directory / name).read_text(encoding="utf-8") for name in SCRIPTS)


def _finite(value: Any) -> Any:
    """Nested lists and dictionaries with None for what JSON does not know (NaN, infinity)."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_finite(item) for item in value]
    return _plain(value)


def _headline(records: Records) -> dict[str, Any]:
    """Numbers of sessions, and the quartiles of the volumes; their range where there are too few participants."""
    done = [row for row in records if not _failed(row)]
    volumes = [volume for row in done if (volume := as_number(row.get(VOLUME_COLUMN))) is not None]
    participants = len({row.get("participant_id") for row in done})
    enough = volumes and participants >= MIN_FOR_QUARTILES
    return {
        "sessions": len(records),
        "done": len(done),
        "failed": len(records) - len(done),
        "participants": participants,
        "quartiles": [float(value) for value in np.percentile(volumes, (25, 50, 75))] if enough else [],
        "range": [min(volumes), max(volumes)] if volumes else [],
        "fewest": MIN_FOR_QUARTILES,
    }


def write_group_report(
    output_dir: str | PathLike[str],
    cohort: Records,
    *,
    evaluation: Records | None = None,
    summary: Mapping[str, Any] | None = None,
    prevalence: str | PathLike[str] | None = None,
    name: str = "group.html",
) -> Path:
    """Write ``OUT/group.html``.

    Parameters
    ----------
    output_dir : path
        Derivatives dataset; subject pages found there are linked.
    cohort : sequence of mappings
        One row per session, the columns of ``group_wmh.tsv`` and any further ones, as text or numbers;
        further columns with a few different values can split the plots.
    evaluation : sequence of mappings, optional
        One row per session, the columns of ``group_evaluation.tsv``.
    summary : mapping, optional
        Content of ``group_summary.json``: what the page says about the evaluation.
    prevalence : path, optional
        NIfTI map in MNI152 space: the fraction of participants with a lesion at each voxel.
    name : str
        File name of the page.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    CannotCreateError
        If the page cannot be written.
    """
    root = Path(output_dir)
    records, scored = _records(cohort), _records(evaluation)
    sessions = _table("sessions", "Sessions", records, root)
    context: dict[str, Any] = {
        **_headline(records),
        "sheet": sessions,
        "failures": [row for row in records if _failed(row)],
        "evaluation": None,
        "map": draw_prevalence(prevalence) if prevalence is not None else None,
        "script": _script(),
    }
    scores = _table("evaluation", "Evaluation per session", scored, root) if scored else None
    results: dict[str, Any] = {}
    if summary:
        results = evaluation_context(_finite(summary))
        without = {row.get("score") for row in records if not _failed(row)} == {"brightness"}
        context["evaluation"] = {
            **results,
            "sheet": scores,
            "titles": TABLE_COLUMNS,
            "without_model": without,
        }
    context["data"] = embed(
        {
            "sessions": _data(sessions, records),
            "evaluation": _data(scores, scored),
            "curves": results.get("curves"),
            "agreement": results.get("agreement"),
            "fewest": MIN_FOR_QUARTILES,
        }
    )
    return write_text(root / name, render("group.html.j2", context))
