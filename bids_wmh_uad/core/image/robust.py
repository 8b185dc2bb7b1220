"""Statistics that a minority of outliers does not move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAD_TO_SD = 1.482602218505602
"""Factor from the median absolute deviation of a normal variable to its standard deviation: 1 / Phi^-1(3/4)."""


def median_and_mad(values: NDArray[Any]) -> tuple[np.floating[Any], np.floating[Any]]:
    """Median, and median absolute deviation from it; times `MAD_TO_SD` it is a robust standard deviation.

    Both have a breakdown point of 1/2 (Huber and Ronchetti, Robust Statistics, 2009).

    Parameters
    ----------
    values : array of float, size >= 1

    Returns
    -------
    median, mad : scalars of the values' own type and in their units
    """
    centre = np.median(values)
    return centre, np.median(np.abs(values - centre))


def half_sample_mode(values: NDArray[Any], max_rounds: int = 64) -> float:
    """Mode of a sample by repeatedly keeping its densest half.

    No bin width to choose, breakdown point 1/2 (Bickel and Fruehwirth, Comput
    Stat Data Anal 2006). Halving stops at about ``n ** 0.8`` values, whose median
    is returned: the classical rule goes down to two values and is then at
    the mercy of rounding in integer images.

    Parameters
    ----------
    values : (n,) array
        Finite values, n >= 1.
    max_rounds : int
        Upper bound on halvings.

    Returns
    -------
    float, in units of `values`.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    stop = max(2, int(ordered.size**0.8))
    for _ in range(max_rounds):
        half = (ordered.size + 1) // 2
        if ordered.size <= stop:
            break
        widths = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
        # The middle one of equally narrow halves: no drift to one side on ties.
        narrowest = np.flatnonzero(widths <= widths.min())
        start = int(narrowest[narrowest.size // 2])
        ordered = ordered[start : start + half]
    return float(np.median(ordered))
