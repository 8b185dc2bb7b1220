"""What FLAIR should be at each voxel of a scan: given its T1w, and given its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Map = NDArray[np.float32]

T1W_BINS = 40
BIN_VOXELS = 200
"""At least so many voxels make a bin."""
LOCAL_BINS = 6
"""Fewer for the local departure, which has fewer voxels to go by."""
LOCAL_MM = 12.0
"""Standard deviation of the neighbourhood: wider than cortex and most lesions, narrower than a lobe."""
LOCAL_STEP_MM = 2.0
PRIOR_MM3 = 200.0
"""So much tissue without departure is taken to lie in every neighbourhood."""
RIM_MM = 6.0
RIM_WEIGHT = 0.5
GREY_MM = 2.0
"""The template's tissue is registered by an affine: its borders are blurred by so much."""
GREY_WEIGHT = 0.7


@dataclass(frozen=True, eq=False)
class ExpectedFlair:
    """What is usual for the scan's own tissue.

    Attributes
    ----------
    level, spread : (X, Y, Z) float32 arrays
        Median, no higher than the ceiling, and 1.4826 MAD of FLAIR among the brain's voxels of the
        same T1w; 0 and 1 outside the mask.
    local : (X, Y, Z) float32 array
        Departure from the level that tissue of the same T1w has around here, at most one spread
        either way: what is left of the bias field, and cortex that is bright in everybody.
    """

    level: Map
    spread: Map
    local: Map

    @property
    def most(self) -> Map:
        """FLAIR that is still usual here: one spread above level and departure."""
        return self.level + self.local + self.spread


def expected_flair(
    flair_z: Map,
    t1w_z: Map,
    mask: NDArray[np.bool_],
    zooms: ArrayLike,
    ceiling: float = np.inf,
    usual: NDArray[np.bool_] | None = None,
) -> ExpectedFlair:
    r"""Expect of every voxel what the scan's own tissue of the same T1w has, everywhere and around it.

    The brain's voxels, sorted by T1w, fall into `T1W_BINS` bins of equal size; FLAIR's median m
    and MAD in each, interpolated, are what is usual (spread s). Cortex and deep grey matter,
    bright on FLAIR in everybody, are compared with grey matter, white matter with white matter.
    The local departure is a mean over voxels y of similar T1w (weights w, of `LOCAL_BINS` bins)
    in a Gaussian neighbourhood G of `LOCAL_MM`, with a prior of `PRIOR_MM3` of usual tissue:

    .. math:: l(x) = \frac{\sum_y G w \, \mathrm{clip}(F_y - m_y, -s_y, s_y)}{\sum_y G w + \text{prior}}

    Medians and clipped residuals are blind to lesions that fill a minority of a bin or of a
    neighbourhood; the ceiling bounds what the others can do.

    Parameters
    ----------
    flair_z, t1w_z : (X, Y, Z) float32 arrays
        Smoothed, registered.
    mask : (X, Y, Z) bool array
        Brain.
    zooms : three floats
        Voxel edges, mm.
    ceiling : float
        Of what may count as usual: lesions that are most of a bin must not.
    usual : (X, Y, Z) bool array, optional
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
    known = mask if usual is None else mask & usual
    flair, t1w = flair_z[known], t1w_z[known]
    if not flair.size:
        raise BadDataError(TOO_FEW_VOXELS.format(what="FLAIR given T1w", n=0, needed=1))
    bins = np.array_split(np.argsort(t1w, kind="stable"), max(1, min(T1W_BINS, flair.size // BIN_VOXELS)))
    centre = np.array([np.median(t1w[rows]) for rows in bins])
    middle, deviation = (
        np.array(values) for values in zip(*(median_and_mad(flair[rows]) for rows in bins), strict=True)
    )
    middle, spread = (
        ndimage.gaussian_filter1d(values, 1.0, mode="nearest") for values in (middle, MAD_TO_SD * deviation)
    )
    middle = np.minimum(middle, ceiling)
    # a bin of equal values has no spread; where none has, white matter's own serves
    spread = np.maximum(spread, 0.1 * float(np.median(spread)) or 1.0)
    level, width = np.zeros(mask.shape, np.float32), np.ones(mask.shape, np.float32)
    level[mask], width[mask] = (np.interp(t1w_z[mask], centre, values) for values in (middle, spread))
    residual = np.clip(flair_z - level, -width, width)
    local = _local_mean(residual, t1w_z, mask, known, np.asarray(zooms, dtype=float))
    return ExpectedFlair(level, width, local)


def _local_mean(
    residual: Map,
    t1w_z: Map,
    mask: NDArray[np.bool_],
    known: NDArray[np.bool_],
    zooms: NDArray[np.float64],
) -> Map:
    """Mean of residuals over the neighbourhood's known voxels of similar T1w, drawn towards 0."""
    step = np.maximum(1, np.rint(LOCAL_STEP_MM / zooms)).astype(int)
    coarse = tuple(slice(None, None, n) for n in step)
    levels = np.quantile(t1w_z[known], (np.arange(LOCAL_BINS) + 0.5) / LOCAL_BINS)
    levels = np.maximum.accumulate(
        levels + 1e-6 * np.arange(LOCAL_BINS)
    )  # equal quantiles do not interpolate
    place = np.interp(t1w_z[coarse], levels, np.arange(LOCAL_BINS)).astype(np.float32)
    numbers = np.arange(LOCAL_BINS, dtype=np.float32).reshape(-1, 1, 1, 1)
    weight = np.maximum(1 - np.abs(place - numbers), 0) * known[coarse]
    sigma = (0.0, *(LOCAL_MM / (zooms * step)))
    total, seen = (
        ndimage.gaussian_filter(values, sigma, mode="constant", truncate=2.5)
        for values in (weight * residual[coarse], weight)
    )
    prior = PRIOR_MM3 / ((2 * np.pi) ** 1.5 * LOCAL_MM**3)  # as a density, like the weights
    where = np.nonzero(mask)
    coordinates = [np.interp(t1w_z[mask], levels, np.arange(LOCAL_BINS))]
    coordinates += [axis / n for axis, n in zip(where, step, strict=True)]
    result = np.zeros(mask.shape, np.float32)
    result[mask] = ndimage.map_coordinates(total / (seen + prior), coordinates, order=1, mode="nearest")
    return result


def rim_weight(mask: NDArray[np.bool_], zooms: ArrayLike) -> Map:
    r"""Weight ``1 - exp(-(d / 6 mm)^2) / 2`` of a voxel at a distance d from the brain mask's outside.

    The brain's rim is cortex, sulci and the mask's own errors; lesions of the white matter hardly
    reach it. At half weight they can still be found there.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
        What lies beyond the image is outside.
    zooms : three floats
        Voxel edges, mm.

    Returns
    -------
    (X, Y, Z) float32 array in [0.5, 1).
    """
    sampling: Any = np.asarray(zooms, dtype=float)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=sampling)[1:-1, 1:-1, 1:-1]
    weight: Map = (1 - RIM_WEIGHT * np.exp(-((distance / RIM_MM) ** 2))).astype(np.float32)
    return weight


def tissue_weight(grey_matter: NDArray[np.bool_], mask: NDArray[np.bool_], zooms: ArrayLike) -> Map:
    r"""Weight ``1 - 0.3 p`` of a voxel that is grey matter with probability p.

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

    Returns
    -------
    (X, Y, Z) float32 array in [0.7, 1]; 1 outside the mask.
    """
    grey = smooth_inside((grey_matter & mask).astype(np.float32), mask, zooms, GREY_MM)
    return 1 - np.float32(1 - GREY_WEIGHT) * grey


def flair_ceiling(flair_z: NDArray[np.float32], tissue: NDArray[np.bool_], k: float) -> np.float32:
    """Brightest FLAIR that healthy tissue is expected to have: ``median + k x 1.4826 MAD``.

    Median and MAD are blind to lesions that fill a minority of the tissue, which
    a high percentile is not.

    Parameters
    ----------
    flair_z : (X, Y, Z) float32 array
    tissue : (X, Y, Z) bool array
        Grey matter (the prior may be coarse).
    k : float

    Returns
    -------
    float32 scalar, z-score.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the tissue is empty.
    """
    values = flair_z[tissue]
    if values.size == 0:
        raise BadDataError(TOO_FEW_VOXELS.format(what="grey matter", n=0, needed=1))
    centre, deviation = median_and_mad(values)
    return np.float32(centre + k * MAD_TO_SD * deviation)
