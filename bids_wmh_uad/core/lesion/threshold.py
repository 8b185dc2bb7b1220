"""Label-free operating points: where an anomaly map becomes a lesion mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad
from bids_wmh_uad.core.lesion.components import connected_components
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and where it comes from.

    Parameters
    ----------
    name : str
        Rule, see `operating_point`.
    parameter : float
        The rule's parameter.
    value : float
        Threshold, in units of the anomaly map: lesion where ``score >= value``.
    edge : float
        Share of a candidate's median score that its voxels must reach.
    """

    name: str
    parameter: float
    value: float
    edge: float = 0.0

    def moved(self, share: float) -> OperatingPoint:
        """The threshold higher by a share of its size (0.2: 20 %); it may be negative ("faithful")."""
        return replace(self, value=self.value + share * abs(self.value))

    def apply(self, score: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the voxels of the mask at or above their level; a score of 0 never is.

        A threshold of 0 means that nothing usual has any score ("directed"): what has one stands out.
        """
        above: NDArray[np.bool_] = (score >= self.value) & mask & (score != 0)
        if self.edge > 0:
            above &= score >= self._levels(score, *connected_components(above))
        return above

    def levels(self, score: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what each voxel must reach: the threshold, or more inside a bright lesion.

        Parameters
        ----------
        score : (X, Y, Z) array
            Anomaly map.
        mask : (X, Y, Z) bool array
            Brain.

        Returns
        -------
        (X, Y, Z) float64 array
            Within each 26-connected component above the threshold the larger of threshold and
            `edge` times its median score; the threshold everywhere else.
        """
        above = (score >= self.value) & mask & (score != 0)
        return self._levels(score, *connected_components(above))

    def _levels(self, score: NDArray[Any], labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
        level = np.full(count + 1, self.value, dtype=np.float64)
        if self.edge > 0 and count:
            inside = labels > 0  # few of all voxels: the median sorts them
            medians = ndimage.median(score[inside], labels[inside], np.arange(1, count + 1))
            level[1:] = np.maximum(self.value, self.edge * np.asarray(medians))
        return level[labels]


def operating_point(
    parameters: DetectionParameters,
    score: NDArray[Any],
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_] | None = None,
) -> OperatingPoint:
    """Find the threshold of an anomaly map by a named rule, without labels.

    Parameters
    ----------
    parameters : DetectionParameters
        Its `threshold` is ``NAME[=VALUE]``:

        - ``tail=K``: see `tail_point`, with `edge`;
        - ``gm=KAPPA``: KAPPA x the quantile `gm_quantile` of the score in the reference tissue;
        - ``quantile=Q``: the Q-quantile of the score in the whole mask;
        - ``value=T``: T itself.
    score : (X, Y, Z) array
        Anomaly map.
    mask : (X, Y, Z) bool array
        Brain.
    reference : (X, Y, Z) bool array, optional
        Reference tissue (atlas grey matter); the brain when not given.

    Returns
    -------
    OperatingPoint

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the reference tissue has no score.
    """
    name, number = parameters.rule
    if name == "value":
        return OperatingPoint(name, number, number)
    if name == "tail":
        return tail_point(score, mask, reference, number, parameters.edge)
    values = _finite(score, mask if reference is None or name == "quantile" else mask & reference)
    if name == "gm":
        return OperatingPoint(name, number, number * float(np.quantile(values, parameters.gm_quantile)))
    return OperatingPoint(name, number, float(np.quantile(values, number)))


def tail_point(
    score: NDArray[Any],
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_] | None,
    tail: float,
    edge: float,
) -> OperatingPoint:
    """Find where a score leaves the robust normal tail of the reference tissue, blind to the lesions in it.

    The threshold is ``(median + K x 1.4826 MAD)^2`` of the square roots of the tissue's positive scores.

    Parameters
    ----------
    score : (X, Y, Z) array
        Anomaly map.
    mask : (X, Y, Z) bool array
        Brain.
    reference : (X, Y, Z) bool array or None
        Reference tissue; the brain without it.
    tail : float
        K, robust standard deviations of the score's square root.
    edge : float
        A candidate ends at this share of its median score, in [0, 1].

    Returns
    -------
    OperatingPoint

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the reference tissue has no score.
    """
    values = _finite(score, mask if reference is None else mask & reference)
    return OperatingPoint("tail", tail, _robust_tail(values, tail), edge)


def _finite(score: NDArray[Any], tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(score[tissue], dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise BadDataError(TOO_FEW_VOXELS.format(what="threshold reference", n=0, needed=1))
    return values


def _robust_tail(values: NDArray[np.float64], k: float) -> float:
    """``(median + k 1.4826 MAD)^2`` of the square roots of the positive values."""
    roots = np.sqrt(values[values > 0]) if (values > 0).any() else np.zeros(1)
    centre, deviation = (float(value) for value in median_and_mad(roots))
    return float((centre + k * (MAD_TO_SD * deviation)) ** 2)


def calibrated_probability(
    score: NDArray[Any], threshold: float | NDArray[Any], steepness: float = DetectionParameters.steepness
) -> NDArray[np.float32]:
    """Map scores to [0, 1] by a logistic in log-score: ``1 / (1 + (threshold / score)^steepness)``.

    Monotone, 0 for scores <= 0 and 1/2 at the threshold. The steepness was chosen for its
    reliability on semi-synthetic scans and phantoms (`benchmarks/detection.py` prints the curve).

    Parameters
    ----------
    score : array
        Anomaly map, larger = more abnormal.
    threshold : float or array like the score
        Operating point, or what each voxel must reach (`OperatingPoint.levels`).
    steepness : float
        Slope of the logistic in log-score.

    Returns
    -------
    float32 array of the same shape.
    """
    values = np.asarray(score, dtype=np.float64)
    if np.min(threshold) <= 0.0:  # a score that may be negative (faithful): logistic in the score itself
        scale = np.maximum(np.abs(threshold), 1e-12)
        exponent = np.clip(steepness * (values - threshold) / scale, -60.0, 60.0)
        return np.asarray(1.0 / (1.0 + np.exp(-exponent)), dtype=np.float32)
    probability, scored = np.zeros(values.shape, dtype=np.float32), values > 0
    floored = np.maximum(values[scored], np.finfo(np.float64).tiny)
    ratio = np.log(floored / np.broadcast_to(threshold, values.shape)[scored])
    probability[scored] = 1.0 / (1.0 + np.exp(-np.clip(steepness * ratio, -60.0, 60.0)))
    return probability
