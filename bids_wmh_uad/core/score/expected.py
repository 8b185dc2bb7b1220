"""What FLAIR should be at each voxel of a scan: given its T1w, and given its place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad
from bids_wmh_uad.core.parallel import parallel_map
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bids_wmh_uad.core.parameters import DetectionParameters

    Map = NDArray[np.float32]

NOTHING = 1e-6
"""Weight of a neighbourhood that holds no such tissue: far below a voxel's at the Gaussian's end."""


@dataclass(frozen=True, eq=False)
class ExpectedFlair:
    """What is usual for the scan's own tissue.

    Attributes
    ----------
    level, spread : (X, Y, Z) float32 arrays
        Median and 1.4826 MAD of FLAIR among the brain's voxels of the
        same T1w; 0 and 1 outside the mask.
    local : (X, Y, Z) float32 array
        Departure from the level that tissue of the same T1w has around here, at most `local_limit`
        spreads either way: what is left of the bias field, and cortex that is bright in everybody.
    """

    level: Map
    spread: Map
    local: Map

    def upper(self, spreads: float) -> Map:
        """Upper bound of usual FLAIR: so many spreads above level and departure, (X, Y, Z) float32."""
        return self.level + self.local + spreads * self.spread


def expected_flair(
    flair_z: Map,
    t1w_z: Map,
    mask: NDArray[np.bool_],
    zooms: ArrayLike,
    params: DetectionParameters,
    *,
    reference: NDArray[np.bool_] | None = None,
) -> ExpectedFlair:
    r"""Expect of every voxel what the scan's own tissue of the same T1w has, everywhere and around it.

    The brain's voxels, sorted by T1w, fall into `t1w_bins` bins of equal size; FLAIR's median m
    and MAD in each, interpolated, are what is usual (spread s). Cortex and deep grey matter,
    bright on FLAIR in everybody, are compared with grey matter, white matter with white matter.
    The local departure is a mean over voxels y of similar T1w (weights w, of `local_bins` bins)
    in a Gaussian neighbourhood G of `local_mm`:

    .. math:: l(x) = \frac{\sum_y G w \, \mathrm{clip}(F_y - m_y, -c s_y, c s_y)}{\sum_y G w}

    c is `local_limit`.

    Medians and clipped residuals are blind to lesions that fill a minority of a bin or of a
    neighbourhood.

    Parameters
    ----------
    flair_z, t1w_z : (X, Y, Z) float32 arrays
        Smoothed z-scores, registered.
    mask : (X, Y, Z) bool array
        Brain.
    zooms : three floats
        Voxel edges, mm.
    params : DetectionParameters
        Bins, neighbourhood.
    reference : (X, Y, Z) bool array, optional
        The voxels of the mask to learn from; all of them without it.

    Returns
    -------
    ExpectedFlair

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when there is nothing to learn from.

    Notes
    -----
    The neighbourhoods are those of a bilateral grid (Chen, Paris and Durand, ACM Trans Graph 2007).
    """
    known = mask if reference is None else mask & reference
    flair, t1w = flair_z[known], t1w_z[known]
    if not flair.size:
        raise BadDataError(TOO_FEW_VOXELS.format(what="FLAIR given T1w", n=0, needed=1))
    count = max(1, min(params.t1w_bins, flair.size // params.bin_voxels))
    bins = np.array_split(np.argsort(t1w, kind="stable"), count)
    centre = np.array([np.median(t1w[rows]) for rows in bins])
    middle, deviation = (
        np.array(values) for values in zip(*(median_and_mad(flair[rows]) for rows in bins), strict=True)
    )
    spread = MAD_TO_SD * deviation
    # a bin of equal values has no spread; where none has, white matter's serves
    spread = np.maximum(spread, params.spread_floor * float(np.median(spread)) or 1.0)
    level, width = np.zeros(mask.shape, np.float32), np.ones(mask.shape, np.float32)
    level[mask], width[mask] = (np.interp(t1w_z[mask], centre, values) for values in (middle, spread))
    limit = params.local_limit * width
    residual = np.clip(flair_z - level, -limit, limit)
    local = _local_mean(residual, t1w_z, mask, known, np.asarray(zooms, dtype=float), params)
    return ExpectedFlair(level, width, local)


def _local_mean(
    residual: Map,
    t1w_z: Map,
    mask: NDArray[np.bool_],
    known: NDArray[np.bool_],
    zooms: NDArray[np.float64],
    params: DetectionParameters,
) -> Map:
    """Mean of residuals over the neighbourhood's known voxels of similar T1w, drawn towards 0."""
    step = np.maximum(1, np.rint(params.local_step_mm / zooms)).astype(int)
    coarse = tuple(slice(None, None, n) for n in step)
    bins = np.arange(params.local_bins)
    levels = np.quantile(t1w_z[known], (bins + 0.5) / params.local_bins)
    levels = np.maximum.accumulate(levels + 1e-6 * bins)  # equal quantiles do not interpolate
    place = np.interp(t1w_z[coarse], levels, bins).astype(np.float32)
    numbers = bins.astype(np.float32).reshape(-1, 1, 1, 1)
    weight = np.maximum(1 - np.abs(place - numbers), 0) * known[coarse]
    sigma = (0.0, *(params.local_mm / (zooms * step)))
    smooth = partial(ndimage.gaussian_filter, sigma=sigma, mode="constant", truncate=params.local_truncate)
    total, seen = parallel_map(smooth, (weight * residual[coarse], weight))
    coordinates = [np.interp(t1w_z[mask], levels, bins)]
    coordinates += [axis / n for axis, n in zip(np.nonzero(mask), step, strict=True)]
    result = np.zeros(mask.shape, np.float32)
    result[mask] = ndimage.map_coordinates(
        total / np.maximum(seen, NOTHING), coordinates, order=1, mode="nearest"
    )
    return result


def rim_weight(mask: NDArray[np.bool_], zooms: ArrayLike, params: DetectionParameters) -> Map:
    r"""Weight ``1 - (1 - w) exp(-(d / rim)^2)`` of a voxel at a distance d from the brain mask's outside.

    The brain's rim is cortex, sulci and the mask's own errors; lesions of the white matter hardly
    reach it. At the weight w they can still be found there.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
        What lies beyond the image is outside.
    zooms : three floats
        Voxel edges, mm.
    params : DetectionParameters
        `rim_weight` is w, `rim_mm` the rim.

    Returns
    -------
    (X, Y, Z) float32 array in [w, 1].
    """
    sampling: Any = np.asarray(zooms, dtype=float)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=sampling)[1:-1, 1:-1, 1:-1]
    weight: Map = (1 - (1 - params.rim_weight) * np.exp(-((distance / params.rim_mm) ** 2))).astype(
        np.float32
    )
    return weight


def tissue_weight(
    grey_matter: NDArray[np.bool_], mask: NDArray[np.bool_], zooms: ArrayLike, params: DetectionParameters
) -> Map:
    r"""Weight ``1 - (1 - w) p`` of a voxel that is grey matter with probability p.

    Hyperintensities of the white matter rarely lie in grey matter, which is bright on FLAIR in
    everybody. The weight is far from a veto: templates do not fit every brain, and lesions at the
    cortex or in the deep nuclei can still be found.

    Parameters
    ----------
    grey_matter : (X, Y, Z) bool array
        Likely grey matter, from a registered template.
    mask : (X, Y, Z) bool array
        Brain.
    zooms : three floats
        Voxel edges, mm.
    params : DetectionParameters
        `grey_weight` is w; p is `grey_matter`, smoothed at `grey_mm`.

    Returns
    -------
    (X, Y, Z) float32 array in [w, 1]; 1 outside the mask.
    """
    grey = smooth_inside((grey_matter & mask).astype(np.float32), mask, zooms, params.grey_mm)
    return 1 - np.float32(1 - params.grey_weight) * grey
