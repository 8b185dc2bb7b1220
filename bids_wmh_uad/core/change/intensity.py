"""The same tissue, the same brightness: sessions of one person matched to each other, none of them the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.change.space import in_any_order
from bids_wmh_uad.core.image.intensity import MINIMUM_VOXELS
from bids_wmh_uad.core.image.morphology import and_across_faces
from bids_wmh_uad.core.image.robust import MAD_TO_SD
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.change.parameters import ChangeParameters

    Images = NDArray[np.float32]

CORE_VOXELS = 50
"""Fewest voxels of lesions common to all sessions whose brightness can be compared."""
LEAST_CORE = 0.05
"""Least step from normal tissue to lesions by which their brightness is matched, in white matter's."""
BESIDE = 2
"""Voxels around a lesion that are not taken for normal tissue."""
LEVELS = 33
"""Number of quantiles that the line is fitted to: far more than it has parameters."""
COARSE_MM = 3.0
"""Grid of the slow field, mm: far below its width."""
ROUNDS = 2
"""Number of times the field is estimated: in the second, voxels that it had put at the limit count in full."""


def normal_tissue(mask: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The brain without lesions and their partial volume, `BESIDE` voxels around them."""
    return np.asarray(mask & ~and_across_faces(lesion, BESIDE))


def match_all(
    flair: Images, t1w: Images, mask: NDArray[np.bool_], lesions: NDArray[Any], params: ChangeParameters
) -> tuple[Images, Images]:
    """Match the sessions of a person: both contrasts in normal tissue, then FLAIR in lesions.

    Parameters
    ----------
    flair, t1w : (n, X, Y, Z) float32 arrays
        In units of white matter's mode, on the common grid.
    mask : (X, Y, Z) bool array
        Brain in all sessions.
    lesions : (n, X, Y, Z) array
        Not 0 in each session's lesions.
    params : ChangeParameters

    Returns
    -------
    flair, t1w : (n, X, Y, Z) float32 arrays
        0 outside the mask. Exchanging sessions exchanges the results, bit for bit.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`.
    """
    lesions = lesions != 0
    normal = normal_tissue(mask, np.any(lesions, axis=0))
    matched = [match_sessions(images, mask, normal, params) for images in (flair, t1w)]
    return match_lesions(matched[0], normal, mask & np.all(lesions, axis=0), params), matched[1]


def match_sessions(
    images: Images, mask: NDArray[np.bool_], normal: NDArray[np.bool_], params: ChangeParameters
) -> Images:
    r"""Match the sessions' intensities of one contrast: a line each, then a slow field each.

    The line takes the session's quantiles in the brain to the mean of all sessions' quantiles (least squares, the middle
    of the distribution only). The field is what is left of the bias, in logarithms:

    .. math:: b_s = \frac{G * \left(m \, \mathrm{clip}(\log I_s - \overline{\log I})\right)}{G * m}, \qquad I_s \leftarrow I_s e^{-b_s}

    with the mean over sessions, a Gaussian G of `field_mm` and m the normal tissue that is no fluid. Clipped at `field_limit` robust
    standard deviations, change has hardly a part in it.

    Parameters
    ----------
    images : (n, X, Y, Z) float32 array
        In units of white matter's mode, on the common grid.
    mask : (X, Y, Z) bool array
        Brain in all sessions.
    normal : (X, Y, Z) bool array
        Brain that is lesion in no session.
    params : ChangeParameters

    Returns
    -------
    (n, X, Y, Z) float32 array, 0 outside the mask. Exchanging sessions exchanges the results, bit for bit.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`.
    """
    known = mask & normal
    if int(known.sum()) < MINIMUM_VOXELS:
        raise BadDataError(
            TOO_FEW_VOXELS.format(
                what="the brain common to all sessions", n=int(known.sum()), needed=MINIMUM_VOXELS
            )
        )
    matched = np.where(mask, _on_one_line(images, known, params), np.float32(0))
    for _ in range(ROUNDS):
        matched = _without_fields(matched, known, params.grid_mm, params)
    return matched


def _on_one_line(images: Images, known: NDArray[np.bool_], params: ChangeParameters) -> Images:
    """Every session's middle quantiles brought to their mean over the sessions."""
    levels = np.linspace(*params.quantiles, LEVELS)
    own = np.stack([np.quantile(image[known].astype(np.float64), levels) for image in images])
    target = in_any_order(own)
    out = np.empty_like(images)
    for image, quantiles, result in zip(images, own, out, strict=True):
        centred = quantiles - quantiles.mean()
        slope = float(centred @ (target - target.mean())) / max(float(centred @ centred), 1e-12)
        result[...] = target.mean() + slope * (image - quantiles.mean())
    return out


def _without_fields(
    images: Images, known: NDArray[np.bool_], spacing: float, params: ChangeParameters
) -> Images:
    """The sessions without what differs slowly between them."""
    step = max(1, round(COARSE_MM / spacing))
    coarse = (slice(None, None, step),) * 3
    brightness = images[:, *coarse]
    usable = known[coarse] & (brightness.min(axis=0) > params.fluid)
    logs = np.log(np.maximum(brightness, np.float32(1e-3)).astype(np.float64))
    ratios = np.where(usable, logs - in_any_order(logs), 0.0)
    sigma = params.field_mm / (spacing * step)
    weight = ndimage.gaussian_filter(usable.astype(np.float64), sigma, mode="constant")
    out = np.empty_like(images)
    for image, ratio, result in zip(images, ratios, out, strict=True):
        centre = np.median(ratio[usable])
        limit = params.field_limit * MAD_TO_SD * np.median(np.abs(ratio[usable] - centre))
        clipped = np.where(usable, np.clip(ratio, centre - limit, centre + limit), 0.0)
        field = ndimage.gaussian_filter(clipped, sigma, mode="constant") / np.maximum(weight, 1e-6)
        result[...] = image * np.exp(-_finer(field, step, image.shape)).astype(np.float32)
    return out


def _finer(field: NDArray[np.float64], step: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Interpolate a field from every `step`-th voxel to all of them, linearly."""
    for axis, size in enumerate(shape):
        places = np.arange(size) / step
        low = np.minimum(places.astype(int), field.shape[axis] - 1)
        high = np.minimum(low + 1, field.shape[axis] - 1)
        share = (places - low).reshape([-1 if k == axis else 1 for k in range(3)])
        field = field.take(low, axis) * (1 - share) + field.take(high, axis) * share
    return field


def match_lesions(
    flair: Images, known: NDArray[np.bool_], core: NDArray[np.bool_], params: ChangeParameters
) -> Images:
    """Match how bright lesions are on FLAIR, above the brightness that normal tissue ends with.

    Scanners differ in how far lesions stand out, which no normal tissue tells. What is lesion in all sessions has the same
    brightness afterwards, as a median over all of it: growth is told by where lesions are, not by how bright.

    Parameters
    ----------
    flair : (n, X, Y, Z) float32 array
        From `match_sessions`.
    known : (X, Y, Z) bool array
        Normal brain.
    core : (X, Y, Z) bool array
        Lesion in all sessions; with fewer than `CORE_VOXELS` voxels nothing is done.
    params : ChangeParameters

    Returns
    -------
    (n, X, Y, Z) float32 array
        Exchanging sessions exchanges the results, bit for bit.
    """
    if int(core.sum()) < CORE_VOXELS:
        return flair
    ends = np.array([np.quantile(image[known].astype(np.float64), params.quantiles[1]) for image in flair])
    knee = float(in_any_order(ends))
    steps = np.array([float(np.median(image[core])) - knee for image in flair])
    if steps.min() < LEAST_CORE:  # lesions that do not stand out
        return flair
    gains = float(in_any_order(steps)) / steps
    return np.stack(
        [
            np.where(image > knee, knee + (image - knee) * np.float32(gain), image).astype(np.float32)
            for image, gain in zip(flair, gains, strict=True)
        ]
    )
