"""The group page: the cohort's table, its lesion volumes, and the evaluation, in one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.reports.pages import as_number, is_missing, render, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import TypeAlias

    import pandas as pd

    Table: TypeAlias = "Sequence[Mapping[str, Any]] | pd.DataFrame"

VOLUME = "wmh_volume_ml"
TITLES = {
    "participant_id": "participant",
    "session_id": "session",
    "status": "status",
    VOLUME: "WMH volume, mL",
    "lesion_count": "lesions",
    "icv_ml": "intracranial volume, mL",
    "wmh_percent_icv": "WMH, % of it",
    "threshold": "threshold",
}
DIGITS = {"lesion_count": 0, "icv_ml": 0}
BASELINES = {"ap": "average precision", "best_dice": "best Dice over thresholds"}
PLOT_WIDTH, PLOT_MARGIN = 900, 30


def _records(table: Table) -> list[dict[str, Any]]:
    """Rows of either kind of table; missing cells become None."""
    raw = table.to_dict("records") if hasattr(table, "to_dict") else table
    return [{str(key): None if is_missing(value) else value for key, value in row.items()} for row in raw]


def _columns(records: Sequence[Mapping[str, Any]], digits: int) -> list[dict[str, Any]]:
    """Known columns first, then whatever else the rows hold."""
    present = dict.fromkeys(key for row in records for key in row)
    keys = [key for key in TITLES if key in present] + [key for key in present if key not in TITLES]
    columns = []
    for key in keys:
        values = [row[key] for row in records if row.get(key) is not None]
        numeric = (
            bool(values) and not key.endswith("_id") and all(as_number(value) is not None for value in values)
        )
        title = TITLES.get(key, key.replace("_", " "))
        columns.append({"key": key, "title": title, "numeric": numeric, "digits": DIGITS.get(key, digits)})
    return columns


def _failed(row: Mapping[str, Any]) -> bool:
    """Whether a session failed: it has no lesion volume."""
    return VOLUME in row and as_number(row[VOLUME]) is None


def _rows(
    records: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]], output_dir: Path
) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        page = f"sub-{str(record.get('participant_id', '')).removeprefix('sub-')}.html"
        rows.append(
            {
                "cells": {column["key"]: record.get(column["key"]) for column in columns},
                "failed": _failed(record),
                "page": page if (output_dir / page).is_file() else "",
            }
        )
    return rows


def _nice_step(span: float) -> float:
    """Return a round tick distance that gives five to ten ticks."""
    power = 10.0 ** np.floor(np.log10(span))
    return float(next(power * part for part in (0.1, 0.2, 0.5, 1.0) if span / (power * part) <= 10))


def _strip_plot(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Positions of the strip and box plot of the volumes; None without any volume."""
    points = [(volume, row) for row in records if (volume := as_number(row.get(VOLUME))) is not None]
    if not points:
        return None
    volumes = np.array([volume for volume, _ in points])
    step = _nice_step(max(float(volumes.max()), 1.0))
    end = step * np.ceil(max(float(volumes.max()), 1.0) / step)
    scale = (PLOT_WIDTH - 2 * PLOT_MARGIN) / end

    def place(value: float) -> float:
        return round(float(PLOT_MARGIN + value * scale), 1)

    low, median, high = (float(value) for value in np.percentile(volumes, (25, 50, 75)))
    marks = [
        {
            "x": place(volume),
            "y": 26 + (index * 29) % 49,  # spreads neighbours vertically, the same way every time
            "volume": volume,
            "label": " ".join(str(row[key]) for key in ("participant_id", "session_id") if row.get(key)),
        }
        for index, (volume, row) in enumerate(points)
    ]
    ticks = [
        {"x": place(value), "text": f"{value:g}"} for value in np.arange(0, end + step / 2, step).round(6)
    ]
    return {
        "width": PLOT_WIDTH,
        "height": 145,
        "left": PLOT_MARGIN,
        "low": low,
        "median": median,
        "high": high,
        "x_low": place(low),
        "x_median": place(median),
        "x_high": place(high),
        "points": marks,
        "ticks": ticks,
    }


def _pairs(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean of the model beside the mean of its baseline, over the sessions that have both."""
    pairs = []
    for key, title in BASELINES.items():
        both = [
            (model, baseline)
            for row in records
            if (model := as_number(row.get(key))) is not None
            and (baseline := as_number(row.get(f"baseline_{key}"))) is not None
        ]
        if both:
            model_mean, baseline_mean = np.mean(both, axis=0)
            wins = sum(model > baseline for model, baseline in both)
            pairs.append(
                {
                    "title": title,
                    "model": float(model_mean),
                    "baseline": float(baseline_mean),
                    "wins": wins,
                    "count": len(both),
                }
            )
    return pairs


def write_group_report(
    output_dir: str | PathLike[str], table: Table, evaluation: Table | None = None
) -> Path:
    """Write ``OUT/group.html``.

    Parameters
    ----------
    output_dir : path
        Derivatives dataset; subject pages found there are linked.
    table : DataFrame or sequence of mappings
        One row per session, the columns of ``group_wmh.tsv``; a missing volume means that the session failed.
    evaluation : DataFrame or sequence of mappings, optional
        One row per session, the columns of ``group_evaluation.tsv``.

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
    records = _records(table)
    columns = _columns(records, digits=2)
    failed = sum(_failed(record) for record in records)
    context: dict[str, Any] = {
        "columns": columns,
        "rows": _rows(records, columns, root),
        "done": len(records) - failed,
        "failed": failed,
        "plot": _strip_plot(records),
        "evaluation": None,
    }
    scored = _records(evaluation) if evaluation is not None else []
    if scored:
        score_columns = _columns(scored, digits=3)
        context["evaluation"] = {
            "columns": score_columns,
            "rows": _rows(scored, score_columns, root),
            "pairs": _pairs(scored),
        }
    page = root / "group.html"
    return write_text(page, render("group.html.j2", context))
