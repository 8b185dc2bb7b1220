"""Evaluating one session of 1.5 million brain voxels with 300 lesions, against a loop over thresholds.

One JSON line, in about a minute on one core. A 182 x 218 x 182 grid of 1 mm; half of the brain's scores are
tied at 0. `ours_s`: AU PRO, exact over all distinct scores, sort included. Peer: per-region overlap at 200
thresholds, one numpy bincount of the lesion labels a threshold. `difference`: of the two areas (the peer's
grid of thresholds is coarse). `session_s`: every measure of a session: one sort for the ranking measures
and curves, then the measures of the mask at a threshold. Medians of the alternations; `ratio` is the
median of their ratios.

    python benchmarks/evaluation.py
"""

from __future__ import annotations

import json
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.evaluation.overlap import (
    avd_percent,
    dice,
    h95_mm,
    lesion_detection,
    lesion_recall_by_size,
)
from bids_wmh_uad.core.evaluation.ranking import Ranking
from bids_wmh_uad.core.evaluation.threshold_free import aupro

SHAPE, VOXELS, SEEDS = (182, 218, 182), 1_500_000, 420
THRESHOLDS, ALTERNATIONS = 200, 5


def session(rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Score and lesion labels on the grid, and the brain mask."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE), indexing="ij", sparse=True)
    radius = sum(axis**2 for axis in grid)
    brain = radius <= np.partition(radius.ravel(), VOXELS - 1)[VOXELS - 1]
    seeds = np.zeros(SHAPE, dtype=bool)
    seeds.ravel()[rng.choice(np.flatnonzero(radius.ravel() < 0.4), SEEDS, replace=False)] = True
    distance = ndimage.distance_transform_edt(~seeds)
    size = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 8)
    lesions = distance < 2.5 + 1.5 * size / size.std()
    labels, _ = ndimage.label(lesions & brain, structure=np.ones((3, 3, 3)))
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 1)
    score = np.maximum(noise / noise.std() + 2.0 * lesions, 0).astype(np.float32)
    return score, labels, brain


def pro_loop(score: NDArray[Any], labels: NDArray[Any]) -> float:
    """AU PRO from a grid of thresholds."""
    sizes = np.bincount(labels)
    fpr, pro = [0.0], [0.0]
    for threshold in np.linspace(score.max(), score.min(), THRESHOLDS):
        covered = np.bincount(labels[score >= threshold], minlength=len(sizes)) / sizes
        fpr.append(covered[0])
        pro.append(covered[1:].mean())
    return float(np.trapezoid(pro, fpr))


def evaluate(score: NDArray[Any], labels: NDArray[Any], brain: NDArray[Any]) -> None:
    """Every measure of a session."""
    ranking = Ranking.of(score[brain], labels[brain])
    for limit in (0.3, 1.0):
        ranking.auroc(limit)
        ranking.aupro(limit)
    ranking.average_precision()
    ranking.best_dice()
    grid = np.linspace(0, 1, 101)
    ranking.roc(grid)
    ranking.pro(grid)
    ranking.precision(grid)
    ranking.dice_at(np.linspace(0.5, 2, 101) * 2.0)
    result, reference = (score >= 2.0) & brain, (labels > 0) & brain
    dice(result, reference)
    h95_mm(result, reference, (1.0, 1.0, 1.0))
    avd_percent(result, reference)
    lesion_detection(result, reference)
    lesion_recall_by_size(result, reference, 0.001)


def main() -> None:
    """Print the JSON line."""
    score, labels, brain = session(np.random.default_rng(0))
    inside, lesion = score[brain], labels[brain]
    times: dict[str, list[float]] = {"peer": [], "ours": [], "session": []}
    for _ in range(ALTERNATIONS):
        start = perf_counter()
        coarse = pro_loop(inside, lesion)
        times["peer"].append(perf_counter() - start)
        start = perf_counter()
        exact = aupro(inside, lesion)
        times["ours"].append(perf_counter() - start)
        start = perf_counter()
        evaluate(score, labels, brain)
        times["session"].append(perf_counter() - start)
    print(
        json.dumps(
            {
                "name": "evaluation",
                "peer": f"per-region overlap at {THRESHOLDS} thresholds, numpy bincount",
                "peer_s": round(median(times["peer"]), 2),
                "ours_s": round(median(times["ours"]), 3),
                "ratio": round(median(p / o for p, o in zip(times["peer"], times["ours"], strict=True)), 1),
                "difference": round(abs(exact - coarse), 6),
                "session_s": round(median(times["session"]), 2),
                "brain_voxels": int(brain.sum()),
                "lesions": int(labels.max()),
            }
        )
    )


if __name__ == "__main__":
    main()
