"""Evaluation measures: one small pure function each; nan where a measure is undefined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

if TYPE_CHECKING:
    from numpy.typing import NDArray


def dice(result: NDArray[Any], reference: NDArray[Any]) -> float:
    """Dice overlap ``2 |A & B| / (|A| + |B|)``; 1 = identical, 0 = disjoint.

    Parameters
    ----------
    result, reference : arrays of the same shape
        Anything that converts to bool.

    Returns
    -------
    float; nan when both are empty.
    """
    a, b = np.asarray(result, dtype=bool), np.asarray(reference, dtype=bool)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else float("nan")


def average_precision(score: NDArray[Any], reference: NDArray[Any]) -> float:
    """Average precision ``sum_n (R_n - R_(n-1)) P_n`` (area under the precision-recall curve).

    Parameters
    ----------
    score : array
        Larger = more abnormal; the voxels inside the brain mask.
    reference : array of the same shape
        Lesion or not.

    Returns
    -------
    float; its chance level is the lesion fraction; nan when there is no lesion voxel.

    Notes
    -----
    scikit-learn's step-wise definition (ties share one operating point).
    """
    truth = np.asarray(reference, dtype=bool).ravel()
    return float(average_precision_score(truth, np.ravel(score))) if truth.any() else float("nan")


def auroc(score: NDArray[Any], reference: NDArray[Any]) -> float:
    """Area under the ROC curve: the chance that a lesion voxel outranks a healthy one.

    Parameters
    ----------
    score, reference : arrays of the same shape
        As in `average_precision`.

    Returns
    -------
    float; nan when one class is missing.
    """
    truth = np.asarray(reference, dtype=bool).ravel()
    mixed = bool(truth.any()) and not bool(truth.all())
    return float(roc_auc_score(truth, np.ravel(score))) if mixed else float("nan")


def best_dice(score: NDArray[Any], reference: NDArray[Any]) -> tuple[float, float]:
    """Dice at the oracle threshold: the largest over every distinct score value.

    Parameters
    ----------
    score, reference : arrays of the same shape
        As in `average_precision`.

    Returns
    -------
    dice : float
        nan when the reference is empty. Needs the labels, so it is an upper bound:
        always shown beside the Dice at a label-free threshold.
    threshold : float
        The largest score value t whose mask ``score >= t`` attains it.
    """
    truth = np.asarray(reference, dtype=bool).ravel()
    if not truth.any():
        return float("nan"), float("nan")
    values = np.ravel(score)
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # tied voxels go together
    overlap = 2.0 * hits[ends] / (ends + 1 + int(truth.sum()))
    best = int(np.argmax(overlap))
    return float(overlap[best]), float(values[ends[best]])
