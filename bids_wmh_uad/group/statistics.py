"""What an evaluated cohort adds up to: means with intervals, by site, pooled thresholds, curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.evaluation.agreement import bland_altman, clustered_mean, icc_agreement
from bids_wmh_uad.core.evaluation.overlap import SIZE_EDGES_ML
from bids_wmh_uad.files import json_plain
from bids_wmh_uad.group.evaluation import (
    EVALUATION_COLUMNS,
    MAPS,
    Evaluation,
    fpr_grid,
    ratio_grid,
    recall_grid,
    score_grid,
)

REPLICATES, CONFIDENCE = 2000, 0.95
SPREAD = (10, 90)
"""Percentiles over sessions that the curves' bands show."""
PAIRED = ("ap", "auroc", "aupro", "best_dice")
"""Measures that all maps have."""
RIVALS = ("brightness", "baseline")
"""The maps that need no model: what it has to beat."""
NOT_MEASURES = ("participant_id", "session_id", "best_threshold")
Row = Mapping[str, Any]


def summarise(
    rows: Sequence[Row],
    evaluations: Sequence[Evaluation | None],
    participants: Mapping[str, Mapping[str, str]],
    seed: int,
) -> dict[str, Any]:
    """Everything ``group_summary.json`` says.

    Parameters
    ----------
    rows : sequence of mapping
        `evaluation.EVALUATION_COLUMNS` of each session.
    evaluations : sequence of Evaluation or None
        Of the same sessions.
    participants : mapping
        Site and scanner by ``participant_id``, see `cohort.read_participants`.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict
        Plain JSON; null where a value is undefined. Intervals are for the mean, by bootstrap
        over participants.
    """
    done = [evaluation for evaluation in evaluations if evaluation is not None]
    columns = dict.fromkeys(name for row in participants.values() for name in row)
    content = {
        **_statistics(rows, seed),
        "by": {name: _by(rows, participants, name, seed) for name in columns},
        "bootstrap": {"replicates": REPLICATES, "confidence": CONFIDENCE, "seed": seed},
        "volume_agreement": _volume_agreement(rows),
    }
    if done:
        content |= {
            "pooled": _pooled(done),
            "lesion_recall_by_size": _recall_by_size(done),
            "curves": _curves(done),
        }
    plain: dict[str, Any] = json_plain(content)
    return plain


def _statistics(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Means and paired differences of some sessions."""
    who = [str(row["participant_id"]) for row in rows]

    def mean_of(values: Sequence[float]) -> dict[str, Any]:
        return asdict(clustered_mean(values, who, np.random.default_rng(seed), REPLICATES, CONFIDENCE))

    columns = [name for name in EVALUATION_COLUMNS if name not in NOT_MEASURES]
    measures = {name: mean_of([_number(row.get(name)) for row in rows]) for name in columns}

    def against(rival: str, name: str) -> dict[str, Any]:
        pairs = [(_number(row.get(name)), _number(row.get(MAPS[rival] + name))) for row in rows]
        both = [pair if all(map(math.isfinite, pair)) else (math.nan, math.nan) for pair in pairs]
        gains = [model - other for model, other in both]
        return {
            **mean_of(gains),
            "better": sum(gain > 0 for gain in gains),
            "model": mean_of([model for model, _ in both]),
            "rival": mean_of([other for _, other in both]),
        }

    differences = {rival: {name: against(rival, name) for name in PAIRED} for rival in RIVALS}
    return {
        "sessions": len(rows),
        "participants": len(set(who)),
        "measures": {name: found for name, found in measures.items() if found["n"]},
        "differences": {
            rival: {name: found for name, found in gains.items() if found["n"]}
            for rival, gains in differences.items()
        },
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _by(
    rows: Sequence[Row], participants: Mapping[str, Mapping[str, str]], column: str, seed: int
) -> dict[str, Any]:
    """The statistics of each site, scanner, ..."""
    levels = [participants.get(str(row["participant_id"]), {}).get(column, "n/a") for row in rows]
    return {
        level: _statistics([row for row, own in zip(rows, levels, strict=True) if own == level], seed)
        for level in sorted(set(levels))
    }


def _volume_agreement(rows: Sequence[Row]) -> dict[str, Any]:
    volumes = np.array(
        [(_number(row.get("wmh_volume_ml")), _number(row.get("reference_volume_ml"))) for row in rows]
    )
    ours, reference = volumes[np.isfinite(volumes).all(axis=1)].T if len(rows) else (volumes, volumes)
    return {**asdict(bland_altman(ours, reference)), "icc": icc_agreement(ours, reference)}


def _pooled(done: Sequence[Evaluation]) -> dict[str, float]:
    """Best Dice of each map over all sessions' voxels together, at one threshold for all."""
    found: dict[str, float] = {}
    for name, prefix in MAPS.items():
        own = [evaluation for evaluation in done if name in evaluation.curves]
        if not own:
            continue
        lesion = sum(evaluation.lesion_voxels for evaluation in own)
        true, false = np.sum([evaluation.curves[name]["counts"] for evaluation in own], axis=0)
        overlap = 2 * true / np.maximum(true + false + lesion, 1)
        best = int(np.argmax(overlap))
        found[f"{prefix}best_dice"] = float(overlap[best]) if lesion else math.nan
        found[f"{prefix}threshold"] = float(score_grid()[best]) if lesion else math.nan
    return found


def _recall_by_size(done: Sequence[Evaluation]) -> list[dict[str, Any]]:
    found, total = np.sum([evaluation.sizes for evaluation in done], axis=0)
    return [
        {
            "from_ml": low,
            "to_ml": high,
            "lesions": int(total[band]),
            "found": int(found[band]),
            "recall": float(found[band] / total[band]) if total[band] else math.nan,
        }
        for band, (low, high) in enumerate(pairwise(SIZE_EDGES_ML))
    ]


def _curves(done: Sequence[Evaluation]) -> dict[str, Any]:
    """Mean and spread over sessions of every curve; a session without a lesion has none."""
    grids: dict[str, tuple[str, Callable[[], NDArray[np.float64]]]] = {
        "roc": ("fpr", fpr_grid),
        "pro": ("fpr", fpr_grid),
        "precision": ("recall", recall_grid),
        "dice": ("ratio", ratio_grid),
    }
    curves: dict[str, Any] = {axis: grid() for axis, grid in grids.values()}
    for curve in grids:
        own = {name: [e.curves[name] for e in done if name in e.curves] for name in MAPS}
        curves[curve] = {
            name: _band([found[curve] for found in sessions])
            for name, sessions in own.items()
            if sessions and curve in sessions[0]
        }
    return curves


def _band(curves: Sequence[NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    table = np.array(curves)
    table = table[np.isfinite(table).all(axis=1)]
    if not len(table):
        empty = np.full(np.array(curves).shape[1], math.nan)
        return {"mean": empty, "low": empty, "high": empty}
    low, high = np.percentile(table, SPREAD, axis=0)
    return {"mean": table.mean(axis=0), "low": low, "high": high}
