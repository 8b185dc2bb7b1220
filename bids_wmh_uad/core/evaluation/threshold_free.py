"""Measures of a score over all thresholds, one at a time: `Ranking` gives several for one sort.

Scores, references and undefined measures are as in `core.evaluation.ranking`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.core.evaluation.ranking import Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    float in [0, 1]; its chance level is the lesion fraction; nan when there is no lesion voxel.

    Raises
    ------
    BadDataError, GridMismatchError
        As `Ranking.of`.

    See Also
    --------
    sklearn.metrics.average_precision_score : The same number.

    Notes
    -----
    scikit-learn's step-wise definition (ties share one operating point).

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.threshold_free import average_precision
    >>> round(average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])), 4)
    0.8333
    """
    return Ranking.of(score, np.asarray(reference, dtype=bool)).average_precision()


def auroc(score: NDArray[Any], reference: NDArray[Any], max_fpr: float = 1.0) -> float:
    """Area under the ROC curve up to a false-positive rate, divided by that rate.

    ``1/m integral_0^m TPR d FPR``. For m = 1 the chance that a lesion voxel outranks a healthy one,
    ties counting half; chance level m / 2.

    Parameters
    ----------
    score, reference : arrays of the same shape
        As in `average_precision`.
    max_fpr : float
        m, in (0, 1]; 0.3 gives the literature's AU ROC 30.

    Returns
    -------
    float in [0, 1]; nan when one class is missing.

    Raises
    ------
    BadDataError, GridMismatchError
        As `Ranking.of`.

    See Also
    --------
    sklearn.metrics.roc_auc_score : The same for m = 1.

    Notes
    -----
    The curve is linear between distinct scores, and at m. scikit-learn's ``max_fpr`` is another measure:
    it rescales the area so that chance is 0.5 (McClish, Med Decis Making 1989).

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.threshold_free import auroc
    >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    return Ranking.of(score, np.asarray(reference, dtype=bool)).auroc(max_fpr)


def aupro(score: NDArray[Any], labels: NDArray[Any], max_fpr: float = 1.0) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by that rate.

    ``1/m integral_0^m PRO d FPR``, PRO the share of a lesion found, averaged over lesions: a lesion of one
    voxel weighs as much as the largest. FPR is over healthy voxels. Chance level m / 2.

    Parameters
    ----------
    score : array
        As in `average_precision`.
    labels : array of the same shape
        0 = healthy, any other number = that lesion, as from `core.lesion.components.label_lesions`.
    max_fpr : float
        m, in (0, 1]; 0.3 gives the literature's AU PRO 30.

    Returns
    -------
    float in [0, 1]; nan without lesions or without healthy voxels.

    Raises
    ------
    BadDataError, GridMismatchError
        As `Ranking.of`.

    See Also
    --------
    auroc : Weighs every lesion voxel the same.

    Notes
    -----
    The measure of Bergmann et al. (2019), exact over all distinct scores instead of a grid of thresholds.

    References
    ----------
    * P. Bergmann, M. Fauser, D. Sattlegger and C. Steger, "MVTec AD: a comprehensive real-world dataset
      for unsupervised anomaly detection", CVPR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.threshold_free import aupro
    >>> aupro(np.array([0.9, 0.8, 0.7, 0.3, 0.5, 0.1]), np.array([1, 1, 1, 2, 0, 0]))  # one of two lesions first
    0.75
    """
    return Ranking.of(score, labels).aupro(max_fpr)


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

    Raises
    ------
    BadDataError, GridMismatchError
        As `Ranking.of`.

    See Also
    --------
    core.evaluation.overlap.dice : Dice of a mask.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.threshold_free import best_dice
    >>> best_dice(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    (0.8, 0.35)
    """
    return Ranking.of(score, np.asarray(reference, dtype=bool)).best_dice()
