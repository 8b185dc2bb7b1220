"""Which departures are change: peaks against the tail that the pair's own peaks have, at a false-discovery rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.lesion.components import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.change.departure import Departure
    from bids_wmh_uad.core.change.parameters import ChangeParameters

    Map = NDArray[np.float32]
    Bools = NDArray[np.bool_]

FEW_PEAKS = 200
"""Smallest number of peaks whose tail can be fitted."""
REACH = 24
"""Largest distance, voxels, that changed tissue goes from a peak along an axis: beyond, it has another peak."""


@dataclass(frozen=True, eq=False)
class Null:
    r"""What peaks of the score are where nothing changed.

    The heights of the score's local maxima and of the negative score's, together. Above the quantile ``1 - tail`` they fall off
    exponentially, a tail heavier than that of smooth Gaussian noise (there :math:`e^{-z^2/2}`), with the scale that the median of the
    exceedances gives: what really changed is a small part of them.

    Attributes
    ----------
    heights : (n,) float64 array
        Sorted.
    start, scale : float
        Where the tail starts, and its scale.
    tail : float
        Share of the peaks in it.
    """

    heights: NDArray[np.float64]
    start: float
    scale: float
    tail: float

    def p_values(self, heights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probability that a peak where nothing changed is at least so high."""
        values = np.asarray(heights, dtype=np.float64)
        above = self.heights.size - np.searchsorted(self.heights, values, side="left")
        body = np.minimum(1.0, (above + 1) / (self.heights.size + 1))
        far = self.tail * np.exp(-(values - self.start) / self.scale)
        return np.where(values > self.start, far, body)

    def height(self, p: float) -> float:
        """Height of a peak of a small p, at most `tail`."""
        return self.start + self.scale * math.log(self.tail / p)


def learn_null(departure: Departure, mask: Bools, params: ChangeParameters) -> Null:
    """Learn the null from all peaks of both signs in a mask: the same for exchanged sessions.

    Parameters
    ----------
    departure : Departure
    mask : (X, Y, Z) bool array
        Where lesions may be and are in neither session.
    params : ChangeParameters

    Returns
    -------
    Null
        Where there are fewer than `FEW_PEAKS`, a tail that nothing exceeds.
    """
    heights = np.sort(
        np.concatenate([sign * departure.score[peaks(sign * departure.score, mask)] for sign in (1, -1)])
    ).astype(np.float64)
    if heights.size < FEW_PEAKS:
        return Null(heights, math.inf, 1.0, params.tail)
    start = float(np.quantile(heights, 1 - params.tail))
    beyond = heights[heights > start] - start
    scale = float(np.median(beyond)) / math.log(2) if beyond.size else 1.0
    return Null(heights, start, max(scale, 1e-6), params.tail)


def peaks(score: Map, mask: Bools) -> Bools:
    """Where a score is positive and the highest among its 26 neighbours, in a mask."""
    return np.asarray((ndimage.maximum_filter(score, 3) == score) & mask & (score > 0))


def false_discovery(p_values: NDArray[np.float64], rate: float) -> float:
    """The largest p that is called a discovery; 0 if none is (Benjamini and Hochberg, J R Stat Soc B 1995).

    Parameters
    ----------
    p_values : (n,) array
        Of all tests.
    rate : float
        False-discovery rate.
    """
    ordered = np.sort(p_values)
    passed = np.flatnonzero(ordered <= rate * np.arange(1, ordered.size + 1) / max(1, ordered.size))
    return float(ordered[passed[-1]]) if passed.size else 0.0


def changed_tissue(score: Map, contrast: Map, seeds: Bools, params: ChangeParameters) -> NDArray[np.int32]:
    """The tissue around peaks: connected, down to a share of the highest peak in it.

    Parameters
    ----------
    score, contrast : (X, Y, Z) float32 arrays
        Signed so that what is looked for is positive.
    seeds : (X, Y, Z) bool array
        Peaks that are change.
    params : ChangeParameters

    Returns
    -------
    (X, Y, Z) int32 array
        0, or the number of the piece, from 1.
    """
    found = np.zeros(score.shape, dtype=bool)
    places = np.argwhere(seeds)
    for place in places[np.argsort(-score[seeds], kind="stable")]:
        box = tuple(slice(max(0, at - REACH), at + REACH + 1) for at in place)
        inside = tuple(at - side.start for at, side in zip(place, box, strict=True))
        if not found[box][inside]:
            labels, _ = ndimage.label(
                contrast[box] >= params.edge * contrast[box][inside], np.ones((3, 3, 3))
            )
            found[box] |= labels == labels[inside]
    return connected_components(found)[0]
