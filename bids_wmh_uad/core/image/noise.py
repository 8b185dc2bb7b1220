"""The noise of a scan, from what its neighbouring voxels do not share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.robust import MAD_TO_SD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def noise_sd(
    image: NDArray[np.float32], mask: NDArray[np.bool_], *, order: int, axes: Sequence[int]
) -> float:
    """Estimate white noise as the robust spread of finite differences, blind to edges that few voxels have.

    Differences of order n are blind to polynomials of a lower degree along their axes. White noise of
    standard deviation s has differences of s times the Euclidean norm of the stencil, which is divided by.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
    mask : (X, Y, Z) bool array
        A difference counts where all voxels of its stencil lie in the mask (and in the image).
    order : int
        Of the differences along each axis, >= 1.
    axes : sequence of int
        Along which differences are taken, one after the other.

    Returns
    -------
    float
        Standard deviation in units of the image; NaN when no stencil lies in the mask.

    Notes
    -----
    Second differences along both axes of a slice are the operator of Immerkaer, "Fast noise variance
    estimation", Comput Vis Image Underst 1996; here with 1.4826 MAD about zero.
    """
    stencil = [(-1.0) ** (order - k) * math.comb(order, k) for k in range(order + 1)]
    differences, shape = image, [1, 1, 1]
    for axis in axes:
        differences = ndimage.correlate1d(differences, stencil, axis=axis, mode="nearest")
        shape[axis] = order + 1
    inside = ndimage.binary_erosion(mask, np.ones(shape, dtype=bool))
    if not inside.any():
        return math.nan
    norm = math.sqrt(sum(weight**2 for weight in stencil) ** len(axes))
    return MAD_TO_SD * float(np.median(np.abs(differences[inside] / np.float32(norm))))
