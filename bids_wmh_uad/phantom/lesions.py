"""Where lesions will be: a field whose upper level sets are the lesions of a brain at every load.

Caps and bands grow from the ventricles' walls and flow together; noise makes patches in deep white matter;
many lesions of 5 to 50 mm3, and some larger, each appear at a load of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.phantom.fields import ramp, smooth_field
from bids_wmh_uad.phantom.spec import MAX_LESION_ML, Array

SMALL_MM3, LARGE_MM3 = (5.0, 50.0), (50.0, 300.0)
"""Volumes of single lesions, mm3: three of four are small."""
SLICE_MM = 2.2
"""Least half-extent of a single lesion from head to feet, mm: so that most of some slice of 4 mm is lesion,
and what a rater sees is in the truth."""
FAINT, CLEAR = (0.30, 0.50), (0.6, 1.15)
"""Contrasts of single lesions, as shares of the subject's brightest."""


class LesionField(NamedTuple):
    """What decides over lesions on the anatomy's grid of 1 mm."""

    score: Array  # lesion where it exceeds a threshold that the load sets
    contrast: Array  # of the lesion that a voxel would belong to, 1 for the subject's bright ones


def make_lesion_field(
    rng: np.random.Generator,
    tissues: Mapping[str, Array],
    near: Array,
    likely: Array,
    below: NDArray[np.bool_],
) -> LesionField:
    """Draw the field of a subject.

    Parameters
    ----------
    rng : Generator
    tissues : dict of arrays
        Fractions of white matter and fluid, among others.
    near, likely : arrays
        exp(-d / 6 mm) for a distance d from the ventricles; 1 where lesions are common, 0 where not.
    below : boolean array
        Brainstem and cerebellum.
    """
    wm = tissues["wm"]
    # Low in the thin white matter of the gyri, not at the ventricles: caps lie on the wall.
    inner = ramp(ndimage.uniform_filter(wm + tissues["csf"] * ramp(near, 0.5, 0.7), 5), 0.45, 0.95)
    patches = smooth_field(rng, wm.shape, rng.uniform(2.0, 3.0))
    confluent = smooth_field(rng, wm.shape, 7.0)
    confluent = np.float32(0.8) * confluent + np.float32(0.6) * confluent[::-1]  # both hemispheres look alike
    # Falls by 0.1 to 0.4 per mm: with the ramp of `soften`, edges of caps fade over 2 to 4 mm. Patches
    # fade out towards the wall: the inside of a cap is smooth.
    caps = np.power(near, np.float32(0.6))
    score = 0.6 * confluent + 0.75 * (1 - caps) * patches + np.float32(rng.uniform(3.0, 4.5)) * caps
    score -= 5 * (1 - inner) + 4 * (1 - ramp(wm, 0.1, 0.6)) + 1.5 * (1 - likely)
    contrast = np.clip(0.8 + 0.3 * caps + 0.18 * smooth_field(rng, wm.shape, 10.0), *(FAINT[0], CLEAR[1]))
    field = LesionField(np.asarray(score, np.float32), contrast.astype(np.float32))
    _add_single_lesions(rng, field, wm, inner, below)
    # What a cap has taken in looks as the cap does: its inside is even.
    field.contrast[...] += ramp(near, 0.3, 0.6) * (contrast - field.contrast)
    return field


def soften(score: Array, threshold: float) -> Array:
    """Lesion fraction where the score is cut at a threshold: 0.5 there, so that half of a fading border is truth."""
    return ramp(score, threshold - 0.25, threshold + 0.25)


def _add_single_lesions(
    rng: np.random.Generator, field: LesionField, wm: Array, inner: Array, below: NDArray[np.bool_]
) -> None:
    """Raise the score in single lesions, in place; their number grows with the load's power of 0.6."""
    loads = np.sort(field.score[::2, ::2, ::2].ravel())
    per_ml = rng.uniform(8, 16)
    number = int(per_ml * MAX_LESION_ML**0.6)
    onsets = (np.arange(1, number + 1) / per_ml) ** (1 / 0.6)  # mL
    tops = loads[-1 - np.minimum(onsets * 1000 / 8, len(loads) - 1).astype(int)]
    for centre, top in zip(_centres(rng, number, wm, inner, below), tops, strict=True):
        limits = SMALL_MM3 if rng.random() < 0.75 else LARGE_MM3
        volume = np.exp(rng.uniform(*np.log(limits)))
        height = max(SLICE_MM, float(np.cbrt(volume * 3 / 4 / np.pi)))
        width = np.sqrt(volume * 3 / 4 / np.pi / height) * np.exp(rng.uniform(-0.2, 0.2))
        level = rng.uniform(*(FAINT if rng.random() < 0.3 else CLEAR))
        where = tuple(slice(max(0, c - 8), c + 9) for c in centre)
        x, y, z = np.ogrid[where]
        jitter = rng.uniform(-0.5, 0.5, 3)
        across = ((x - centre[0] - jitter[0]) ** 2 + (y - centre[1] - jitter[1]) ** 2) / width**2
        u = np.sqrt(across + ((z - centre[2] - jitter[2]) / height) ** 2).astype(np.float32)
        # From appearing to its full size within a little of the load; afterwards it grows slowly.
        blob = np.float32(top) + np.where(u < 1, 0.35 * (1 - u**2), 2 * (1 - u))
        blob -= 4 * (1 - ramp(wm[where], 0.1, 0.6))  # stays out of cortex and fluid
        field.contrast[where][(blob > field.score[where]) & (u < 1.5)] = level
        np.maximum(field.score[where], blob, out=field.score[where])


def _centres(
    rng: np.random.Generator, number: int, wm: Array, inner: Array, below: NDArray[np.bool_]
) -> NDArray[np.int_]:
    """Draw voxels, most in deep white matter, a share under the cortex, a few in brainstem and cerebellum."""
    coarse = tuple(slice(None, None, 2) for _ in range(3))
    white, deep, low = wm[coarse] > 0.7, inner[coarse] > 0.6, below[coarse]
    places = [np.flatnonzero(x) for x in (white & deep & ~low, white & ~deep & ~low, white & low)]
    shares = np.array([0, rng.uniform(0.15, 0.4), rng.uniform(0.0, 0.08)])
    shares[0] = 1 - shares.sum()
    kinds = rng.choice(3, number, p=shares)
    drawn = np.stack([rng.choice(x, number) for x in places])[kinds, np.arange(number)]
    return 2 * np.stack(np.unravel_index(drawn, white.shape), axis=-1)
