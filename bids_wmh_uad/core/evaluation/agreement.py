"""Agreement of two measurements over a cohort, and means over sessions of the same subjects.

Entries that are not finite are left out; of two measurements, both. nan where a value is undefined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import bootstrap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class BlandAltman:
    """Differences ``result - reference``, in the unit of the values.

    Parameters
    ----------
    bias : float
        Mean difference; nan without any.
    sd : float
        Standard deviation of the differences (n - 1); nan for fewer than two.
    low, high : float
        95 % limits of agreement, ``bias -+ 1.96 sd``.
    n : int
        Sessions with both values.
    """

    bias: float
    sd: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ClusteredMean:
    """Mean of values that come in clusters, with its bootstrap interval.

    Parameters
    ----------
    mean, median : float
        Over all values; nan without any.
    low, high : float
        Confidence interval of the mean; nan for fewer than two clusters.
    n : int
        Values.
    clusters : int
        Clusters that have a value.
    """

    mean: float
    median: float
    low: float
    high: float
    n: int
    clusters: int


def bland_altman(result: ArrayLike, reference: ArrayLike) -> BlandAltman:
    """Bias and limits of agreement: 95 % of normal differences lie between the limits.

    Parameters
    ----------
    result, reference : (N,) arrays
        Two measurements of each session, in one unit.

    Returns
    -------
    BlandAltman

    Notes
    -----
    Sessions are taken as independent.

    References
    ----------
    * J. M. Bland and D. G. Altman, "Statistical methods for assessing agreement between two methods of
      clinical measurement", Lancet 327 (1986) 307-310.

    Examples
    --------
    >>> from bids_wmh_uad.core.evaluation.agreement import bland_altman
    >>> found = bland_altman([1.0, 2.0, 4.0], [1.0, 1.0, 3.0])
    >>> round(found.bias, 3), round(found.low, 3), found.n
    (0.667, -0.465, 3)
    """
    values = _finite_rows(result, reference)
    difference = values[:, 0] - values[:, 1]
    n = len(difference)
    bias = float(difference.mean()) if n else float("nan")
    sd = float(difference.std(ddof=1)) if n > 1 else float("nan")
    return BlandAltman(bias, sd, bias - 1.96 * sd, bias + 1.96 * sd, n)


def icc_agreement(result: ArrayLike, reference: ArrayLike) -> float:
    """Intraclass correlation ICC(2,1): two-way random effects, absolute agreement, single measure.

    ``(MS_rows - MS_error) / (MS_rows + MS_error + 2 (MS_columns - MS_error) / n)`` for two columns;
    1 = identical, 0 or less = no agreement. Unlike a correlation it falls with bias.

    Parameters
    ----------
    result, reference : (N,) arrays
        Two measurements of each session, in one unit.

    Returns
    -------
    float; nan for fewer than two sessions and where nothing but error varies or nothing at all.

    Notes
    -----
    ICC(2,1) of Shrout and Fleiss (1979) is ICC(A,1) of McGraw and Wong (1996).

    References
    ----------
    * P. E. Shrout and J. L. Fleiss, "Intraclass correlations: uses in assessing rater reliability",
      Psychol Bull 86 (1979) 420-428.
    * K. O. McGraw and S. P. Wong, "Forming inferences about some intraclass correlation coefficients",
      Psychol Methods 1 (1996) 30-46.

    Examples
    --------
    >>> from bids_wmh_uad.core.evaluation.agreement import icc_agreement
    >>> round(icc_agreement([1.0, 2.0, 4.0], [1.0, 1.0, 3.0]), 3)
    0.833
    """
    values = _finite_rows(result, reference)
    n = len(values)
    if n < 2 or values.min() == values.max():
        return float("nan")
    centred = values - values.mean()
    rows, columns = centred.mean(axis=1), centred.mean(axis=0)
    ms_rows = 2.0 * float(np.sum(rows**2)) / (n - 1)
    ms_columns = n * float(np.sum(columns**2))
    ms_error = float(np.sum((centred - rows[:, None] - columns) ** 2)) / (n - 1)
    total = ms_rows + ms_error + 2.0 * (ms_columns - ms_error) / n
    return (ms_rows - ms_error) / total if total > 0 else float("nan")


def clustered_mean(
    values: ArrayLike,
    clusters: ArrayLike,
    rng: np.random.Generator,
    replicates: int = 2000,
    confidence: float = 0.95,
) -> ClusteredMean:
    """Mean over all values, with a percentile bootstrap that draws whole clusters with replacement.

    Parameters
    ----------
    values : (N,) array
        One number a session.
    clusters : (N,) array of numbers or strings
        The subject of each: sessions of one subject are not independent.
    rng : numpy.random.Generator
        Source of the draws.
    replicates : int
        Number of draws.
    confidence : float
        Level of the interval, in (0, 1).

    Returns
    -------
    ClusteredMean
        The interval does not depend on the order of the sessions, up to rounding.

    Notes
    -----
    With few clusters the interval is too narrow.

    References
    ----------
    * A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.agreement import clustered_mean
    >>> found = clustered_mean([1.0, 2.0, 6.0], ["a", "a", "b"], np.random.default_rng(0))
    >>> found.mean, found.low <= found.mean <= found.high, found.clusters
    (3.0, True, 2)
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    finite = np.isfinite(numbers)
    numbers, names = numbers[finite], np.asarray(clusters).ravel()[finite]
    if not numbers.size:
        nan = float("nan")
        return ClusteredMean(nan, nan, nan, nan, n=0, clusters=0)
    _, member, counts = np.unique(names, return_inverse=True, return_counts=True)
    sums = np.bincount(member, numbers)
    low = high = float("nan")
    if len(counts) > 1:
        interval = bootstrap(
            (sums, counts),
            _ratio,
            n_resamples=replicates,
            vectorized=True,
            paired=True,
            confidence_level=confidence,
            method="percentile",
            rng=rng,
        )
        low, high = (float(limit) for limit in interval.confidence_interval)
    return ClusteredMean(
        float(numbers.mean()), float(np.median(numbers)), low, high, len(numbers), len(counts)
    )


def _ratio(sums: NDArray[Any], counts: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    """Mean over all values of some clusters, from their sums and counts."""
    mean: NDArray[Any] = sums.sum(axis=axis) / counts.sum(axis=axis)
    return mean


def _finite_rows(result: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """(n, 2) float64 array of the sessions whose two values are finite."""
    columns = [np.asarray(column, dtype=np.float64).ravel() for column in (result, reference)]
    values = np.stack(columns, axis=1)
    kept: NDArray[np.float64] = values[np.isfinite(values).all(axis=1)]
    return kept
