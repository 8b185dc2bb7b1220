"""The numbers of the group page's evaluation section, from ``group_summary.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bids_wmh_uad.reports.pages import MISSING, as_number

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURE_ROWS = (
    "dice", "lesion_f1", "lesion_recall", "lesion_precision", "avd_percent", "h95_mm",
    "ap", "auroc", "auroc30", "aupro", "aupro30", "best_dice",
)  # fmt: skip
"""Names of the measures in the first table, in its order."""
COMPARED_MEASURES = ("ap", "auroc", "aupro", "best_dice")
"""Names of the measures that are compared with what needs no model."""
RIVALS = {"brightness": "brightness", "baseline": "the FLAIR z-score"}
"""The maps that need no model: what their columns begin with, and what they are called."""
GROUPED_MEASURES = ("dice", "lesion_f1", "avd_percent", "ap")
"""Names of the measures in the tables by group, such as sites."""
MIN_FOR_INTERVAL, MIN_FOR_QUARTILES = 10, 5
"""Fewest participants of which the page gives an interval or a verdict, and quartiles: of fewer, they promise too much."""
DIGITS = {"h95_mm": 1, "avd_percent": 1, "auroc": 4, "auroc30": 4, "aupro": 4, "aupro30": 4}
"""Number of decimals of the measures that do not have three."""


def evaluation_context(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the template writes about the evaluation.

    Parameters
    ----------
    summary : mapping
        Content of ``group_summary.json``, finite numbers and None.

    Returns
    -------
    dict
        Rows of texts for each table, and the numbers of the curves.
    """
    measures = summary["measures"]
    pooled = summary.get("pooled") or {}
    participants = summary["participants"]
    few = participants < MIN_FOR_INTERVAL
    return {
        "few": few,
        "fewest": MIN_FOR_INTERVAL,
        "count": summary["sessions"],
        "participants": participants,
        "measures": [_measure_row(key, measures[key]) for key in MEASURE_ROWS if measures.get(key)],
        "versus": [
            _versus_row(key, rival, stats)
            for key in COMPARED_MEASURES
            for rival in RIVALS
            if (stats := _difference(summary, rival, key))
        ],
        "groups": [_group(column, levels) for column, levels in (summary.get("by") or {}).items() if levels],
        "without_brightness": _sessions(measures, "ap") - _sessions(measures, "brightness_ap"),
        "pooled": {key: show_number(value, 3) for key, value in pooled.items() if value is not None},
        "sizes": [_size_row(row) for row in summary.get("lesion_recall_by_size") or ()],
        "agreement": _agreement(summary.get("volume_agreement") or {}, few=few),
        "curves": _without_bands(summary.get("curves")) if few else summary.get("curves"),
        "bootstrap": {} if few else _bootstrap(summary.get("bootstrap") or {}, participants),
    }


def _difference(part: Mapping[str, Any], rival: str, key: str) -> Mapping[str, Any]:
    """The paired difference of some sessions from a rival; empty where there is none."""
    return ((part.get("differences") or {}).get(rival) or {}).get(key) or {}


def _sessions(measures: Mapping[str, Any], key: str) -> int:
    """How many sessions have a measure."""
    return int((measures.get(key) or {}).get("n") or 0)


def _without_bands(value: Any) -> Any:
    """Curves without their bands."""
    if not isinstance(value, dict):
        return value
    return {key: _without_bands(part) for key, part in value.items() if key not in {"low", "high"}}


def _bootstrap(stats: Mapping[str, Any], participants: int) -> dict[str, Any]:
    """How the intervals were made; empty where the summary does not say."""
    known = stats.get("replicates") and stats.get("confidence")
    return {**stats, "clusters": stats.get("clusters") or participants} if known else {}


def show_number(value: object, digits: int, *, signed: bool = False) -> str:
    """A number with a true minus sign; ``n/a`` if missing."""
    number = as_number(value)
    if number is None:
        return MISSING
    return f"{number:{'+' if signed else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def show_mean(stats: Mapping[str, Any] | None, digits: int, *, signed: bool = False) -> str:
    """``mean [low, high]``; the mean alone where there is no interval, or too few participants for one."""
    stats = stats or {}
    mean = show_number(stats.get("mean"), digits, signed=signed)
    if _too_few(stats):
        return mean
    low, high = (show_number(stats.get(key), digits, signed=signed) for key in ("low", "high"))
    return mean if MISSING in {low, high} else f"{mean} [{low}, {high}]"


def _too_few(stats: Mapping[str, Any]) -> bool:
    """Whether a mean is of fewer participants than an interval needs."""
    return (as_number(stats.get("clusters")) or 0) < MIN_FOR_INTERVAL


def _measure_row(key: str, stats: Mapping[str, Any]) -> dict[str, Any]:
    digits = DIGITS.get(key, 3)
    return {
        "key": key,
        "mean": show_mean(stats, digits),
        "median": show_number(stats.get("median"), digits),
        "n": stats.get("n"),
        "clusters": stats.get("clusters"),
    }


def _versus_row(key: str, rival: str, stats: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the comparison; both means are of the sessions that have both maps."""
    digits = DIGITS.get(key, 3)
    return {
        "key": key,
        "model": show_mean(stats.get("model"), digits),
        "name": RIVALS[rival],
        "rival": show_mean(stats.get("rival"), digits),
        "difference": show_mean(stats, digits, signed=True),
        "better": stats.get("better"),
        "n": stats.get("n"),
        "verdict": verdict(stats, RIVALS[rival]),
        "kind": _kind(stats),
    }


def _kind(stats: Mapping[str, Any]) -> str:
    low, high = as_number(stats.get("low")), as_number(stats.get("high"))
    if low is None or high is None or _too_few(stats):
        return "unknown"
    if low > 0:
        return "model"
    return "rival" if high < 0 else "open"


def verdict(stats: Mapping[str, Any], rival: str) -> str:
    """What the interval of a paired difference from a rival, by its name, says in words."""
    if _too_few(stats):
        return f"none: fewer than {MIN_FOR_INTERVAL} participants"
    return {
        "model": "the model is better",
        "rival": f"{rival} is better",
        "open": "undecided: the interval holds 0",
        "unknown": "no interval",
    }[_kind(stats)]


def _group(column: str, levels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Table of one grouping, for example by site."""
    present = [
        key
        for key in GROUPED_MEASURES
        if any((level.get("measures") or {}).get(key) for level in levels.values())
    ]
    rows = [
        {
            "name": name,
            "sessions": level.get("sessions"),
            "participants": level.get("participants"),
            "cells": [
                show_mean((level.get("measures") or {}).get(key), DIGITS.get(key, 3)) for key in present
            ],
            "differences": [show_mean(_difference(level, rival, "ap"), 3, signed=True) for rival in RIVALS],
        }
        for name, level in levels.items()
    ]
    return {"title": column.replace("_", " "), "keys": present, "rivals": list(RIVALS.values()), "rows": rows}


def _size_row(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high, recall = (as_number(row.get(key)) for key in ("from_ml", "to_ml", "recall"))
    start = f"{low or 0:g}"
    return {
        "range": f"{start} mL and more" if high is None else f"{start} to {high:g} mL",
        "lesions": row.get("lesions"),
        "found": row.get("found"),
        "recall": MISSING if recall is None else f"{100 * recall:.0f} %",
        "width": 0 if recall is None else round(100 * recall, 1),
    }


def _agreement(stats: Mapping[str, Any], *, few: bool) -> dict[str, Any] | None:
    """Bias and, unless there are too few participants, limits of agreement of the volumes, with their texts."""
    if stats.get("bias") is None:
        return None
    if few:
        stats = {**stats, "low": None, "high": None, "icc": None}
    low, high, icc = (as_number(stats.get(key)) for key in ("low", "high", "icc"))
    known = low is not None and high is not None
    return {
        **stats,
        "bias_text": show_number(stats["bias"], 2, signed=True),
        "limits_text": f"{show_number(low, 2)} to {show_number(high, 2)}" if known else "",
        "icc_text": show_number(icc, 3) if icc is not None else "",
    }
