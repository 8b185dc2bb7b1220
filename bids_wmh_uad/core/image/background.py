"""What lies around a head, and bringing it to 0, below everything else, where a scan has it elsewhere.

Masking, resampling and N4 take 0 for "nothing here". In z-scored scans, phase-sensitive inversion recovery and MP2RAGE
0 lies amid the tissue: registration then aligns the mask's outline instead of the brain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BELOW = 0.1
"""Share of the range of intensities that may lie below 0 and be left alone: overshoot of an interpolation stays within."""
RANGE = (0.1, 99.9)
"""Percentiles between which the range of intensities is taken."""
LEAST = 1e-3
"""Least intensity of what is not background, as a share of the range: above 0, so that 0 stays the background's."""
MOST_OF_FACES, OTHER_VALUES = 0.5, 0.05
"""Share of the grid's faces that a constant background fills at least, and any second value at most: noise, even rounded to few values, does not."""


def constant_background(data: NDArray[Any]) -> float | None:
    """The one value that most of the grid's faces have; NaN where they are not finite; None where there is none.

    Parameters
    ----------
    data : (X, Y, Z) array
    """
    faces = np.concatenate([data.take(end, axis=axis).ravel() for axis in range(3) for end in (0, -1)])
    values, counts = np.unique(np.where(np.isfinite(faces), faces, np.nan), return_counts=True)
    order = np.argsort(counts)[::-1]
    shares = counts[order] / faces.size
    if shares[0] < MOST_OF_FACES or (shares.size > 1 and shares[1] > OTHER_VALUES):
        return None
    return float(values[order[0]])


def lift_background(data: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Bring the background to 0 and all else above it; a scan that is so already, or nearly, stays as it is.

    Parameters
    ----------
    data : (X, Y, Z) float32 array
        What is not finite counts as background.

    Returns
    -------
    lifted : (X, Y, Z) float32 array
        Finite.
    shift : float
        What was added to everything but the background; 0 if nothing was.
    """
    background = constant_background(data)
    outside = ~np.isfinite(data)
    if background is not None and not np.isnan(background):
        outside |= _reached(data == background)
    inside = data[~outside]
    low, high = np.percentile(inside, RANGE) if inside.size else (0.0, 0.0)
    elsewhere = background is not None and not np.isnan(background) and background != 0
    if not high > low or not (elsewhere or low < -MAX_BELOW * (high - low)):
        return np.where(np.isfinite(data), data, np.float32(0)), 0.0
    least = LEAST * (high - low)
    shift = (
        -float(background)
        if elsewhere and background is not None and background < low
        else least - float(low)
    )
    lifted = np.maximum(data + np.float32(shift), np.float32(least))
    return np.where(outside, np.float32(0), lifted), shift


def _reached(same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask that is connected with the grid's faces: tissue may have the background's value too."""
    labels, _ = ndimage.label(same)
    faces = [np.unique(labels.take(end, axis=axis)) for axis in range(3) for end in (0, -1)]
    return same & np.isin(labels, np.unique(np.concatenate(faces)))
