"""Measures of a score: how well it ranks lesion voxels above healthy ones, over all thresholds.

Scores and references are those of the voxels inside the brain mask, in arrays of any one shape. Larger =
more abnormal; a mask at threshold t is ``score >= t``, so tied voxels enter together. nan where a measure
is undefined. `Ranking` sorts once for all measures; `threshold_free` has functions for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.errors import BAD_VALUE, GRID_MISMATCH, BadDataError, GridMismatchError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """Counts of the mask ``score >= t`` at every distinct score t; make it with `Ranking.of`.

    Parameters
    ----------
    thresholds : (K,) float64 array
        The distinct scores, falling.
    true : (K,) int64 array
        Lesion voxels in the mask.
    false : (K,) int64 array
        Healthy voxels in the mask.
    overlap : (K,) float64 array
        Share of a lesion that is in the mask, averaged over lesions; 0 without lesions.

    See Also
    --------
    core.evaluation.threshold_free : Single measures.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.evaluation.ranking import Ranking
    >>> ranking = Ranking.of(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 2]))  # two lesions
    >>> ranking.auroc(), ranking.best_dice()
    (0.75, (0.8, 0.35))
    >>> ranking.counts_at([0.4])  # of lesion and of healthy voxels
    (array([1]), array([1]))
    """

    thresholds: NDArray[np.float64]
    true: NDArray[np.int64]
    false: NDArray[np.int64]
    overlap: NDArray[np.float64]

    @classmethod
    def of(cls, score: NDArray[Any], labels: NDArray[Any]) -> Ranking:
        """Sort scores and count.

        Parameters
        ----------
        score : array
            Finite numbers; compared in float64.
        labels : array of the same shape
            0 = healthy, any other number = that lesion. A bool array is one lesion, which suffices
            for every measure but AU PRO.

        Returns
        -------
        Ranking

        Raises
        ------
        BadDataError
            `errors.BAD_VALUE`: a score is not finite.
        GridMismatchError
            `errors.GRID_MISMATCH`: the shapes differ.
        """
        if np.shape(score) != np.shape(labels):
            detail = f"{np.shape(score)} and {np.shape(labels)}"
            raise GridMismatchError(GRID_MISMATCH.format(first="score", second="reference", detail=detail))
        values, numbers = np.ravel(score), np.ravel(labels)
        finite = np.isfinite(values)
        if not finite.all():
            wrong = float(values[~finite][0])
            expected = "scores inside the brain mask must be finite"
            raise BadDataError(BAD_VALUE.format(option="score", value=wrong, expected=expected))
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        # a plain sort is far quicker than one that says where things were: only lesions need that
        falling = np.sort(values)[::-1]
        ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), np.arange(values.size)[-1:])
        thresholds = falling[ends]
        places = np.flatnonzero(numbers)
        places = places[np.argsort(-values[places], kind="stable")]
        entered = np.searchsorted(-thresholds, -values[places])
        true = np.cumsum(np.bincount(entered, minlength=thresholds.size))
        return cls(thresholds.astype(np.float64), true, ends + 1 - true, _overlap(numbers[places])[true])

    @property
    def lesion_voxels(self) -> int:
        """Number of lesion voxels."""
        return int(self.true[-1]) if self.true.size else 0

    @property
    def healthy_voxels(self) -> int:
        """Number of healthy voxels."""
        return int(self.false[-1]) if self.false.size else 0

    def auroc(self, max_fpr: float = 1.0) -> float:
        """Area under the ROC curve, as `threshold_free.auroc`."""
        return self._area(self.true / max(self.lesion_voxels, 1), max_fpr)

    def aupro(self, max_fpr: float = 1.0) -> float:
        """Area under the per-region overlap curve, as `threshold_free.aupro`."""
        return self._area(self.overlap, max_fpr)

    def average_precision(self) -> float:
        """Area under the precision-recall curve, as `threshold_free.average_precision`."""
        if not self.lesion_voxels:
            return float("nan")
        gained = np.diff(self.true[self._gains], prepend=0)
        return float(np.sum(gained * self._precisions) / self.lesion_voxels)

    def best_dice(self) -> tuple[float, float]:
        """Dice at the oracle threshold, and that threshold, as `threshold_free.best_dice`."""
        if not self.lesion_voxels:
            return float("nan"), float("nan")
        true, false = self.true[self._gains], self.false[self._gains]
        overlap = 2.0 * true / (true + false + self.lesion_voxels)
        best = int(np.argmax(overlap))
        return float(overlap[best]), float(self.thresholds[self._gains[best]])

    def roc(self, fpr: ArrayLike) -> NDArray[np.float64]:
        """True-positive rate at false-positive rates, linear between the distinct scores.

        Parameters
        ----------
        fpr : array
            In [0, 1].

        Returns
        -------
        float64 array of that shape; the highest rate where the curve is vertical, nan where one
        class is missing.
        """
        return self._curve(self.true / max(self.lesion_voxels, 1), fpr)

    def pro(self, fpr: ArrayLike) -> NDArray[np.float64]:
        """Per-region overlap at false-positive rates, linear between the distinct scores.

        Parameters
        ----------
        fpr : array
            In [0, 1].

        Returns
        -------
        float64 array of that shape, as from `roc`.
        """
        return self._curve(self.overlap, fpr)

    def precision(self, recall: ArrayLike) -> NDArray[np.float64]:
        """Interpolated precision: the highest at a recall of at least r.

        Parameters
        ----------
        recall : array
            Share r of lesion voxels found, in [0, 1].

        Returns
        -------
        float64 array of that shape, never rising with r; nan without lesion voxels and for r > 1.
        """
        rates = np.asarray(recall, dtype=np.float64)
        if not self.lesion_voxels:
            return np.full(rates.shape, np.nan)
        highest = np.maximum.accumulate(self._precisions[::-1])[::-1]
        needed = np.ceil(rates * self.lesion_voxels - 1e-6)  # a millionth of a voxel forgives rounding
        first = np.searchsorted(self.true[self._gains], needed)
        precision: NDArray[np.float64] = np.append(highest, np.nan)[first]
        return precision

    def counts_at(self, thresholds: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Lesion and healthy voxels in the masks ``score >= t``.

        Parameters
        ----------
        thresholds : array
            Any numbers t, compared in float64; nan gives the empty mask.

        Returns
        -------
        true_positives, false_positives : int64 arrays of that shape
        """
        t = np.asarray(thresholds, dtype=np.float64)
        masks = np.searchsorted(-self.thresholds, np.where(np.isnan(t), -np.inf, -t), side="right")
        return np.append(0, self.true)[masks], np.append(0, self.false)[masks]

    def dice_at(self, thresholds: ArrayLike) -> NDArray[np.float64]:
        """Dice of the masks ``score >= t``.

        Parameters
        ----------
        thresholds : array
            As in `counts_at`.

        Returns
        -------
        float64 array of that shape; nan where the mask and the reference are both empty.
        """
        true, false = self.counts_at(thresholds)
        total = (true + false + self.lesion_voxels).astype(np.float64)
        overlap: NDArray[np.float64] = 2.0 * true / np.where(total > 0, total, np.nan)
        return overlap

    @cached_property
    def _gains(self) -> NDArray[np.intp]:
        """Scores of lesion voxels. Between them only healthy voxels enter: every precision and Dice falls until the next."""
        return np.flatnonzero(np.diff(self.true, prepend=0))

    @property
    def _precisions(self) -> NDArray[np.float64]:
        """Precision at the scores of lesion voxels."""
        true, false = self.true[self._gains], self.false[self._gains]
        precisions: NDArray[np.float64] = true / (true + false)
        return precisions

    @cached_property
    def _corners(self) -> NDArray[np.intp]:
        """Scores at which rates over the false-positive rate bend: those of lesion voxels, the ones before them, the last."""
        before = self._gains[self._gains > 0] - 1
        return np.union1d(np.append(self._gains, self.true.size - 1), before)

    def _bends(self, rates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False-positive rates and some rates, from (0, 0), where they bend."""
        false = self.false[self._corners] / self.healthy_voxels
        return np.append(0.0, false), np.append(0.0, rates[self._corners])

    def _curve(self, rates: NDArray[np.float64], fpr: ArrayLike) -> NDArray[np.float64]:
        """Rates at false-positive rates; nan when one class is missing."""
        at = np.asarray(fpr, dtype=np.float64)
        if not (self.lesion_voxels and self.healthy_voxels):
            return np.full(at.shape, np.nan)
        return np.asarray(np.interp(at, *self._bends(rates)))  # the last of points with one abscissa

    def _area(self, rates: NDArray[np.float64], max_fpr: float) -> float:
        """Trapezoids of rates over [0, max_fpr] of the false-positive rate, divided by max_fpr."""
        if not (self.lesion_voxels and self.healthy_voxels):
            return float("nan")
        x, y = self._bends(rates)
        kept = int(np.searchsorted(x, max_fpr, side="right"))
        x, y = np.append(x[:kept], max_fpr), np.append(y[:kept], np.interp(max_fpr, x, y))
        return float(np.trapezoid(y, x)) / max_fpr


def _overlap(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Mean share of a lesion among the first 0, 1, ... lesion voxels: they weigh 1 / size / lesions."""
    _, lesion, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    shares = np.append(0.0, np.cumsum(1.0 / sizes[lesion]))
    shares /= max(shares[-1], 1.0)  # the sum is the number of lesions, up to rounding
    return shares
