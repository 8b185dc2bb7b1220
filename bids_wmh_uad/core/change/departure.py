"""How far a voxel of one session departs from the same voxel of another, in units of what such voxels do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.intensity import smooth_each_inside
from bids_wmh_uad.core.image.morphology import without_rim
from bids_wmh_uad.core.image.robust import MAD_TO_SD, median_and_mad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.change.parameters import ChangeParameters

    Map = NDArray[np.float32]

LEAST_WEIGHT = 1e-3
"""Least share of the neighbourhood that is known tissue, for a local spread other than 1."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sessions of one person on the common grid, matched (`intensity.match_sessions`).

    Parameters
    ----------
    flair, t1w : (2, X, Y, Z) float32 arrays
        Before and after, in units of white matter's mode.
    mask : (X, Y, Z) bool array
        Brain in both.
    spacing : float
        Voxel edge, mm.
    """

    flair: Map
    t1w: Map
    mask: NDArray[np.bool_]
    spacing: float
    _smooth: dict[float, tuple[list[Map], list[Map]]] = field(default_factory=dict, init=False, repr=False)

    def smoothed(self, sigma_mm: float) -> tuple[list[Map], list[Map]]:
        """FLAIR and T1w of both sessions, smoothed in the brain; made once."""
        if sigma_mm not in self._smooth:
            images = (*self.flair, *self.t1w)
            done = smooth_each_inside(images, self.mask, (self.spacing,) * 3, sigma_mm)
            self._smooth[sigma_mm] = done[:2], done[2:]
        return self._smooth[sigma_mm]


@dataclass(frozen=True, eq=False)
class Departure:
    """What changed, and how surely.

    Attributes
    ----------
    score : (X, Y, Z) float32 array
        Signed: positive where FLAIR became brighter than its T1w explains; in robust standard deviations of the null.
    contrast : (X, Y, Z) float32 array
        FLAIR's change that T1w's does not explain, in white matter's brightness, smoothed; 0 outside the mask.
    spread : (X, Y, Z) float32 array
        The null's robust standard deviation of `contrast`; 1 outside the mask.
    """

    score: Map
    contrast: Map
    spread: Map


def find_departure(pair: Pair, lesion: NDArray[np.bool_], params: ChangeParameters) -> Departure:
    r"""Compare two sessions voxel by voxel, with a null from the pair itself.

    Both differences are smoothed. Voxels are alike when they have the same T1w and lie at equally steep
    edges of FLAIR and of T1w: what misalignment, other slices and noise do is the same to them. In each such bin the
    FLAIR's difference is expected from the T1w's by a line through a robust slope (ventricles that grew, other
    partial volume), and the rest r has a median m and a spread s = 1.4826 MAD:

    .. math:: d_F = G * (F_2 - F_1), \quad d_T = G * (T_2 - T_1), \quad r = d_F - \beta d_T, \quad z = \frac{r - m}{s}

    z is divided by its local spread where that is above 1: of what is lesion in neither session, so that a large lesion that came is not its
    own null. Steepness is that of the darker of both FLAIRs and the brighter of
    both T1w: a new lesion, or one that went, makes no edge there, and so cannot hide itself.

    Exchanging the sessions changes the sign of score and contrast and nothing else.

    Parameters
    ----------
    pair : Pair
    lesion : (X, Y, Z) bool array
        Lesions of either session.
    params : ChangeParameters

    Returns
    -------
    Departure
    """
    flair, t1w = pair.smoothed(params.smooth_mm)
    inside = pair.mask
    first, second = flair[1][inside] - flair[0][inside], t1w[1][inside] - t1w[0][inside]
    rest, spread = against_alike(first, second, alike(pair, params))
    contrast, widths = np.zeros(inside.shape, np.float32), np.ones(inside.shape, np.float32)
    contrast[inside], widths[inside] = rest, spread
    widths *= _local_spread(contrast / widths, inside, lesion, pair.spacing, params)
    return Departure(np.where(inside, contrast / widths, np.float32(0)), contrast, widths)


def alike(pair: Pair, params: ChangeParameters) -> list[NDArray[np.intp]]:
    """Groups of the mask's voxels that have the same T1w and lie at equally steep edges: the bins of the null.

    Parameters
    ----------
    pair : Pair
    params : ChangeParameters
    """
    flair, t1w = pair.smoothed(params.smooth_mm)
    dark, bright = np.minimum(*flair), np.maximum(*t1w)
    edges = [_steepness(image, pair)[pair.mask] for image in (dark, bright)]
    return _in_bins(bright[pair.mask], edges, params)


def _steepness(image: Map, pair: Pair) -> Map:
    """Length of the gradient, per mm; across the mask's outline there is none."""
    weight = without_rim(pair.mask)
    total = np.zeros(image.shape, np.float32)
    for axis in range(3):
        total += np.gradient(image, pair.spacing, axis=axis).astype(np.float32) ** 2
    return np.where(weight, np.sqrt(total), np.float32(total.max() ** 0.5))


def _in_bins(level: Map, edges: list[Map], params: ChangeParameters) -> list[NDArray[np.intp]]:
    """Groups of voxels: of the same level first, then of the same steepness of the first image, then of the second."""
    groups = np.array_split(np.argsort(level, kind="stable"), params.tissue_bins)
    for edge in edges:
        groups = [
            part
            for group in groups
            for part in np.array_split(
                group[np.argsort(edge[group], kind="stable")],
                max(1, min(params.edge_bins, group.size // params.bin_voxels)),
            )
        ]
    return [group for group in groups if group.size]


def against_alike(first: Map, second: Map, bins: list[NDArray[np.intp]]) -> tuple[Map, Map]:
    """What is left of a difference in each bin when another is taken out of it, centred, and its spread.

    Parameters
    ----------
    first, second : (n,) float32 arrays
        Of the mask's voxels: FLAIR's difference, and T1w's.
    bins : list of integer arrays
        From `alike`.
    """
    rest, spread = np.zeros_like(first), np.ones_like(first)
    floor = MAD_TO_SD * float(np.median(np.abs(first))) * 0.1 or 1.0
    for group in bins:
        left = first[group] - _slope(first[group], second[group]) * second[group]
        centre, deviation = median_and_mad(left)
        rest[group], spread[group] = left - centre, max(MAD_TO_SD * float(deviation), floor)
    return rest, spread


def _slope(first: Map, second: Map) -> np.float32:
    """Robust slope of one difference on the other: least squares on the middle of both."""
    centred = [values - np.median(values) for values in (first, second)]
    limits = [3 * MAD_TO_SD * np.median(np.abs(values)) for values in centred]
    kept = (np.abs(centred[0]) <= limits[0]) & (np.abs(centred[1]) <= limits[1])
    x, y = centred[1][kept].astype(np.float64), centred[0][kept].astype(np.float64)
    power = float(x @ x)
    return np.float32(float(x @ y) / power if power > 0 else 0.0)


def _local_spread(
    score: Map, mask: NDArray[np.bool_], lesion: NDArray[np.bool_], spacing: float, params: ChangeParameters
) -> Map:
    """Root of the local mean square of limited scores beside lesions, in units of a normal variable's; at least 1."""
    step = max(1, round(params.local_mm / (4 * spacing)))
    coarse = (slice(None, None, step),) * 3
    known = (mask & ~lesion)[coarse].astype(np.float32)
    square = np.minimum(np.abs(score[coarse]), params.local_limit) ** 2
    sigma = params.local_mm / (spacing * step)
    total, weight = (
        ndimage.gaussian_filter(part, sigma, mode="constant") for part in (square * known, known)
    )
    local = np.divide(total, weight, out=np.ones_like(total), where=weight > LEAST_WEIGHT)
    fine = ndimage.zoom(
        local, [n / m for n, m in zip(score.shape, local.shape, strict=True)], order=1, grid_mode=False
    )
    return np.where(mask, np.sqrt(np.maximum(fine, 1.0)), np.float32(1)).astype(np.float32)
