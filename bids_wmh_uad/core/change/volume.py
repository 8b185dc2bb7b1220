"""How much a lesion grew: FLAIR's difference summed over it and its rim, with an interval from the pair's own noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.special import ndtr, ndtri

from bids_wmh_uad.core.image.robust import MAD_TO_SD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.change.departure import Departure, Pair
    from bids_wmh_uad.core.change.parameters import ChangeParameters

    Bools = NDArray[np.bool_]

EDGES = (1, 3, 5, 9, 15)
"""Edges of the boxes, voxels, over which the noise of sums is measured; their volumes span those of lesions."""
WINDOW = (0.25, 0.75)
"""Part of the step from normal tissue to lesion in which FLAIR counts: noise of both plateaus does not."""
AROUND_MM = (1.0, 4.0)
"""Shell around a lesion whose darker half is its normal tissue, mm."""
LEAST_STEP = 0.05
"""Least step from normal tissue to lesion, in white matter's brightness."""


@dataclass(frozen=True)
class VolumeChange:
    """How much a lesion grew (negative: shrank), mm3.

    Attributes
    ----------
    mm3, sd : float
        The change, and the standard deviation of its error.
    """

    mm3: float
    sd: float

    def interval(self, level: float) -> tuple[float, float]:
        """Interval of the change at a level such as 0.95, mm3."""
        half = float(ndtri(0.5 + level / 2)) * self.sd
        return self.mm3 - half, self.mm3 + half


@dataclass(frozen=True, eq=False)
class SumNoise:
    """How the noise of sums of the score grows with the number of voxels.

    Attributes
    ----------
    sizes, factors : (n,) float64 arrays
        Numbers of voxels, and variance of their sum over that of independent voxels.
    """

    sizes: NDArray[np.float64]
    factors: NDArray[np.float64]

    def factor(self, size: float) -> float:
        """The factor for a sum over so many voxels."""
        return float(np.interp(np.log(max(size, 1.0)), np.log(self.sizes), self.factors))

    def p_value(self, scores: NDArray[np.float32]) -> float:
        """Probability that so many scores (n,) have at least this sum where nothing changed."""
        spread = np.sqrt(scores.size * self.factor(scores.size))
        return float(ndtr(-scores.sum(dtype=np.float64) / spread))


def measure_sums(departure: Departure, normal: Bools, params: ChangeParameters) -> SumNoise:
    """Measure the noise of sums: the robust spread of the score's means over boxes of normal tissue.

    Parameters
    ----------
    departure : Departure
    normal : (X, Y, Z) bool array
        Where lesions may be and are in neither session.
    params : ChangeParameters
    """
    limited = np.clip(np.where(normal, departure.score, 0), -params.local_limit, params.local_limit)
    sizes, factors = [], []
    for edge in EDGES:
        share = ndimage.uniform_filter(normal.astype(np.float32), edge)
        means = ndimage.uniform_filter(limited.astype(np.float32), edge)[share > 0.95]
        if means.size < 100:
            break
        deviation = MAD_TO_SD * float(np.median(np.abs(means)))
        sizes.append(float(edge**3))
        factors.append(max(1.0, deviation**2 * edge**3))
    return SumNoise(np.array(sizes or [1.0]), np.maximum.accumulate(np.array(factors or [1.0])))


def excess(pair: Pair, lesion: Bools, others: Bools) -> float:
    """How much brighter a lesion is than its surroundings, as a mean in the session where it is brighter; at least `LEAST_STEP`.

    Parameters
    ----------
    pair : Pair
    lesion, others : (X, Y, Z) bool arrays
        As in `volume_change`.
    """
    shell = _shell(_distance(pair, lesion)) & pair.mask & ~others
    brightness = [float(image[lesion].mean()) for image in pair.flair]
    ground = float(np.median(np.minimum(*pair.flair)[shell])) if shell.any() else min(brightness)
    return max(max(brightness) - ground, LEAST_STEP)


def _distance(pair: Pair, lesion: Bools) -> NDArray[np.float64]:
    """From a lesion, mm."""
    return np.asarray(ndimage.distance_transform_edt(~lesion, sampling=pair.spacing))


def _shell(distance: NDArray[np.float64]) -> Bools:
    return np.asarray((distance > AROUND_MM[0]) & (distance <= AROUND_MM[1]))


def volume_change(
    pair: Pair, departure: Departure, noise: SumNoise, lesion: Bools, others: Bools, params: ChangeParameters
) -> VolumeChange:
    r"""Measure how much a lesion grew, from the brightness of all voxels in it and around it.

    .. math:: \Delta V = v \sum_{x} \frac{\mathrm{clip}(F_2, l, h) - \mathrm{clip}(F_1, l, h)}{h - l},
              \qquad l, h = N + (0.25, 0.75) \, (L - N)

    over the voxels x of volume v in the lesion of either session and `rim_mm` around it; L is the lesion's brightness (upper quartile
    of the brighter session) and N that of its surroundings (median of the darker session), the same for both. A voxel counts as far as
    it goes from normal to lesion: partial volumes count in part, and neither mask's threshold counts.
    The error is that of the difference at such voxels (`Departure.spread`), those that can move at all, and of their sum (`SumNoise`),
    times `volume_inflation`.

    Exchanging the sessions changes the sign of the change and nothing else.

    Parameters
    ----------
    pair : Pair
    departure : Departure
    noise : SumNoise
    lesion : (X, Y, Z) bool array
        In either session; a box of the common grid suffices, if all arrays are cut to it.
    others : (X, Y, Z) bool array
        Other lesions: their voxels do not count.
    params : ChangeParameters

    Returns
    -------
    VolumeChange

    Notes
    -----
    The boundary shift integral of Freeborough and Fox, IEEE Trans Med Imaging 1997, for lesions.
    """
    distance = _distance(pair, lesion)
    free = pair.mask & ~others
    near = (distance <= params.rim_mm) & free
    shell = _shell(distance) & free
    voxel = pair.spacing**3
    bright, dark = np.maximum(*pair.flair), np.minimum(*pair.flair)
    inside = lesion & free
    if not inside.any() or not shell.any():
        return VolumeChange(0.0, float(lesion.sum()) * voxel)
    top, ground = float(np.quantile(bright[inside], 0.75)), float(np.median(dark[shell]))
    step = max(top - ground, LEAST_STEP)
    low, high = (ground + share * step for share in WINDOW)
    before, after = (np.clip(image[near], low, high) for image in pair.flair)
    change = float((after - before).sum(dtype=np.float64)) * voxel / (high - low)
    moving = ~(((before == low) & (after == low)) | ((before == high) & (after == high)))
    power = float((departure.spread[near][moving].astype(np.float64) ** 2).sum())
    error = voxel * np.sqrt(power * noise.factor(float(moving.sum()))) / (high - low)
    return VolumeChange(change, max(params.volume_inflation * float(error), voxel))
