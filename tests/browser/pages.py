"""Cohorts, evaluations and summaries such as the group level makes, of any size."""

from __future__ import annotations

from typing import Any

import numpy as np

SITES, SCANNERS = ("Amsterdam", "Singapore", "Utrecht"), ("1.5 T GE", "3 T GE", "3 T Philips")
REASON = 'the FLAIR has no brain: <b>"found" & lost</b></script><script>alert(1)</script>'
MEASURES = (
    "dice",
    "lesion_recall",
    "lesion_precision",
    "lesion_f1",
    "ap",
    "auroc",
    "auroc30",
    "aupro",
    "aupro30",
)


def make_cohort(
    sessions: int, *, failed: int = 0, extras: bool = True, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of ``group_wmh.tsv``: skewed volumes, the first `failed` sessions failed."""
    draw = np.random.default_rng(seed)
    rows = []
    for index in range(sessions):
        icv, volume = draw.normal(1450, 120), float(np.exp(draw.normal(1.9, 1.1)))
        row: dict[str, Any] = {
            "participant_id": f"sub-{index // 2 + 1:04d}",
            "session_id": f"ses-{index % 2 + 1}",
            "status": "done",
            "wmh_volume_ml": volume,
            "lesion_count": int(4 + volume * draw.uniform(0.8, 2.5)),
            "largest_lesion_ml": volume * draw.uniform(0.2, 0.7),
            "icv_ml": icv,
            "wmh_percent_icv": 100 * volume / icv,
            "rejected_count": int(draw.poisson(6)),
            "volume_ml_lower": volume * draw.uniform(0.4, 0.8),
            "volume_ml_upper": volume * draw.uniform(1.2, 2.0),
            "unstable_volume": int(draw.random() < 0.1),
            "volume_ml_threshold_minus20": volume * draw.uniform(1.1, 1.6),
            "volume_ml_threshold_plus20": volume * draw.uniform(0.5, 0.9),
            "threshold": draw.normal(0.4, 0.05),
            "threshold_rule": "brain-quantile=0.98",
            "score": "patient",
            "model": "default",
            "registration_overlap": draw.beta(80, 4),
            "warnings": int(draw.poisson(0.3)),
            "reason": None,
        }
        if index < failed:
            row = {key: row[key] if key.endswith("_id") else None for key in row}
            row.update(status="failed", reason=REASON)
        if extras:
            row.update(
                site=SITES[index % 3], scanner=SCANNERS[index % 3 - index % 2], age=int(draw.normal(68, 9))
            )
        rows.append(row)
    return rows


def make_evaluation(cohort: list[dict[str, Any]], seed: int = 1) -> list[dict[str, Any]]:
    """Rows of ``group_evaluation.tsv`` for the sessions that are done."""
    draw = np.random.default_rng(seed)
    rows = []
    for row in cohort:
        if row["status"] != "done":
            continue
        volume = row["wmh_volume_ml"]
        skill = float(np.clip(draw.normal(0.55, 0.12) + 0.06 * np.log(volume), 0.05, 0.92))
        scores = {key: float(np.clip(skill + draw.normal(0.05, 0.05), 0, 1)) for key in MEASURES}
        reference = volume * float(np.exp(draw.normal(0.05, 0.3)))
        rows.append(
            {
                "participant_id": row["participant_id"],
                "session_id": row["session_id"],
                "reference_volume_ml": reference,
                "wmh_volume_ml": volume,
                **scores,
                "h95_mm": float(draw.gamma(3, 3)),
                "avd_percent": 100 * abs(volume - reference) / reference,
                "best_dice": min(scores["dice"] + 0.05, 1.0),
                "best_threshold": float(draw.normal(0.38, 0.05)),
                "brightness_ap": float(np.clip(scores["ap"] - draw.normal(0.0, 0.02), 0, 1)),
                "brightness_auroc": float(np.clip(scores["auroc"] - draw.normal(0.0, 0.01), 0, 1)),
                "brightness_aupro": float(np.clip(scores["aupro"] - draw.normal(0.0, 0.01), 0, 1)),
                "brightness_best_dice": float(np.clip(scores["dice"] - draw.normal(0.0, 0.02), 0, 1)),
                "baseline_ap": float(np.clip(scores["ap"] - draw.normal(0.08, 0.08), 0, 1)),
                "baseline_auroc": float(np.clip(scores["auroc"] - draw.normal(0.03, 0.03), 0, 1)),
                "baseline_aupro": float(np.clip(scores["aupro"] - draw.normal(0.03, 0.03), 0, 1)),
                "baseline_best_dice": float(np.clip(scores["dice"] - draw.normal(0.02, 0.08), 0, 1)),
            }
        )
    return rows


def _stats(values: list[float], clusters: int) -> dict[str, Any]:
    mean, error = float(np.mean(values)), float(np.std(values)) / max(np.sqrt(clusters), 1)
    low, high = (mean - 1.96 * error, mean + 1.96 * error) if clusters > 1 else (None, None)
    median = float(np.median(values))
    return {"mean": mean, "median": median, "low": low, "high": high, "n": len(values), "clusters": clusters}


def _part(rows: list[dict[str, Any]]) -> dict[str, Any]:
    clusters = len({row["participant_id"] for row in rows})
    keys = [key for key in rows[0] if not key.endswith("_id")]
    differences: dict[str, dict[str, Any]] = {"brightness": {}, "baseline": {}}
    for rival, found in differences.items():
        for key in ("ap", "auroc", "aupro", "best_dice"):
            gains = [row[key] - row[f"{rival}_{key}"] for row in rows]
            means = {"model": [row[key] for row in rows], "rival": [row[f"{rival}_{key}"] for row in rows]}
            found[key] = {
                **_stats(gains, clusters),
                "better": sum(gain > 0 for gain in gains),
                **{side: _stats(values, clusters) for side, values in means.items()},
            }
    measures = {key: _stats([row[key] for row in rows], clusters) for key in keys}
    return {"sessions": len(rows), "participants": clusters, "measures": measures, "differences": differences}


def _band(mean: np.ndarray, width: float) -> dict[str, Any]:
    low, high = np.clip(mean - width, 0, 1), np.clip(mean + width, 0, 1)
    return {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()}


def _curves() -> dict[str, Any]:
    fpr, recall, ratio = np.linspace(0, 1, 101), np.linspace(0, 1, 101), np.geomspace(0.25, 4, 61)
    pro = {
        "model": _band(1 - (1 - fpr) ** 10, 0.12),
        "brightness": _band(1 - (1 - fpr) ** 9, 0.12),
        "baseline": _band(1 - (1 - fpr) ** 7, 0.12),
    }
    precision = {
        "model": _band(0.95 - 0.8 * recall**3, 0.15),
        "brightness": _band(0.94 - 0.8 * recall**3, 0.15),
        "baseline": _band(0.9 - 0.85 * recall**2, 0.15),
    }
    precision["model"]["mean"][0] = None
    return {
        "fpr": fpr.tolist(),
        "roc": {
            "model": _band(1 - (1 - fpr) ** 25, 0.05),
            "brightness": _band(1 - (1 - fpr) ** 24, 0.05),
            "baseline": _band(1 - (1 - fpr) ** 14, 0.08),
        },
        "pro": pro,
        "recall": recall.tolist(),
        "precision": precision,
        "ratio": ratio.tolist(),
        "dice": {"model": _band(0.65 * np.exp(-(np.log(ratio / 0.95) ** 2)), 0.1)},
    }


def make_summary(evaluation: list[dict[str, Any]], cohort: list[dict[str, Any]]) -> dict[str, Any]:
    """Content of ``group_summary.json``."""
    places = {(row["participant_id"], row["session_id"]): row for row in cohort}
    by: dict[str, dict[str, Any]] = {}
    for column in ("site", "scanner"):
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in evaluation:
            level = places[row["participant_id"], row["session_id"]].get(column)
            if level is not None:
                groups.setdefault(str(level), []).append(row)
        if groups:
            by[column] = {level: _part(rows) for level, rows in sorted(groups.items())}
    gaps = np.array([row["wmh_volume_ml"] - row["reference_volume_ml"] for row in evaluation])
    bias, spread = float(gaps.mean()), float(gaps.std())
    whole = _part(evaluation)
    edges = (0, 0.01, 0.05, 0.2, 1, None)
    sizes = [
        {"from_ml": low, "to_ml": high, "lesions": 100, "found": found, "recall": found / 100}
        for low, high, found in zip(edges, edges[1:], (12, 35, 61, 90, 100), strict=False)
    ]
    return {
        **whole,
        "by": by,
        "pooled": {
            "best_dice": 0.61, "threshold": 0.377, "brightness_best_dice": 0.6, "brightness_threshold": 0.12,
            "baseline_best_dice": 0.55, "baseline_threshold": 2.31,
        },
        "lesion_recall_by_size": sizes,
        "volume_agreement": {
            "bias": bias, "sd": spread, "low": bias - 1.96 * spread, "high": bias + 1.96 * spread,
            "n": len(evaluation), "icc": 0.93,
        },
        "bootstrap": {"replicates": 2000, "confidence": 0.95, "seed": 2023},
        "curves": _curves(),
    }  # fmt: skip
