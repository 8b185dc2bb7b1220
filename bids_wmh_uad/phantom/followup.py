"""A person's later sessions: lesions that come, grow, shrink and go, and ventricles that widen.

What does not change is left alone: a lesion's course is written into the score whose level set it is, in and
around that lesion only, and the anatomy keeps its shape, its texture and its normal bright structures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.phantom.fields import ramp
from bids_wmh_uad.phantom.lesions import soften
from bids_wmh_uad.phantom.mimics import Slices
from bids_wmh_uad.phantom.spec import Array, Change, FollowedLesion

Numbers = NDArray[np.uint16]
REACH_MM = 6.0
"""Voxels this near to a lesion belong to it, if to no nearer one: where it may grow."""
CLEARANCE_MM = 4.0
"""Least distance of a new lesion from every other, present or past."""
FORERUNNER = 0.05
"""Largest share of a new lesion that may have been there before, as a fading border below the threshold."""
NEXT_MM3 = (500, 1000, 2000, 4000, 8000, 16000, 32000)
"""New lesions are those that would come first if the load grew, by this much."""
WIDENING_MM = 6.0
"""Standard deviation of the push that widening ventricles give: the tissue beyond three of them stays in place."""


class Course(NamedTuple):
    """The lesions of a session and of the one before, on the anatomy's grid."""

    score: Array
    before: Array
    numbers: Numbers  # of the lesion that a voxel belongs to
    fates: dict[int, str]  # of lesions that changed since the session before


def follow(seed: int, score: Array, threshold: float, changes: Sequence[Change]) -> Course:
    """Let the lesions of a first session take their course.

    Parameters
    ----------
    seed : int
        Decides which lesions change.
    score : array
        `LesionField.score` of the first session, on a grid of 1 mm.
    threshold : float
        Lesion where the score exceeds it.
    changes : sequence of Change
        In order.
    """
    where = _box(score > threshold - 90)  # without the head
    inside = score[where].copy()
    cores = _label(inside >= threshold).astype(np.uint16)
    before, fates = inside, dict[int, str]()
    for k, change in enumerate(changes, start=1):
        rng = np.random.default_rng([seed, 9, k])
        before = inside.copy()
        fates = _change(rng, inside, _grow_numbers(cores), threshold, change)
        fates |= _appear(rng, inside, cores, threshold, change)
    numbers = np.zeros(score.shape, np.uint16)
    numbers[where] = _grow_numbers(cores)
    return Course(_put(inside, where, score), _put(before, where, score), numbers, fates)


def _box(mask: NDArray[np.bool_]) -> Slices:
    return tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(mask))


def _put(part: Array, where: Slices, whole: Array) -> Array:
    out = whole.copy()
    out[where] = part
    return out


def _label(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    return np.asarray(ndimage.label(mask, np.ones((3, 3, 3)))[0])


def _grow_numbers(cores: Numbers) -> Numbers:
    """Give each voxel the number of the nearest lesion within reach, or 0."""
    if not cores.any():
        return cores
    far, nearest = ndimage.distance_transform_edt(cores == 0, return_indices=True)
    return np.where(far <= REACH_MM, cores[tuple(nearest)], 0).astype(np.uint16)


def volumes(score: Array, numbers: Numbers, threshold: float) -> NDArray[np.float64]:
    """Volume of each lesion, from number 0, mm3: partial volumes count with their share."""
    return np.asarray(np.bincount(numbers.ravel(), soften(score, threshold).ravel()), np.float64)


def _change(
    rng: np.random.Generator, score: Array, numbers: Numbers, threshold: float, change: Change
) -> dict[int, str]:
    """Let some lesions grow, some shrink and some go, in place; return their fates."""
    sizes = volumes(score, numbers, threshold)
    low, high = change.lesion_mm3
    waiting = list(
        rng.permutation(np.flatnonzero((sizes >= low) & (sizes <= high) & (np.arange(len(sizes)) > 0)))
    )
    boxes = ndimage.find_objects(numbers)
    wanted = {
        "resolved": (change.resolved, 0.0),
        "shrinking": (change.shrunk, 1 - change.shrinkage),
        "enlarging": (change.grown, 1 + change.growth),
    }
    fates: dict[int, str] = {}
    for fate, (count, factor) in wanted.items():
        changed = 0
        while changed < count and waiting:
            number = int(waiting.pop())
            where = boxes[number - 1]
            if _resize(score[where], numbers[where] == number, threshold, factor * sizes[number]):
                fates[number] = fate
                changed += 1
    return fates


def _resize(score: Array, own: NDArray[np.bool_], threshold: float, volume: float) -> bool:
    """Raise or lower the score of one lesion, in place, until it has a volume; False where that cannot be reached."""
    if volume == 0:
        score[own] = np.minimum(score[own], threshold - 0.5)
        return True
    outside = ndimage.distance_transform_edt(~(own & (score >= threshold)))
    weight = ramp(outside, 4.0, 2.0) * own

    def excess(offset: float) -> float:
        return float(soften(score + np.float32(offset) * weight, threshold)[own].sum()) - volume

    offset = _root(excess, -3.0, 3.0)
    if offset is None:
        return False
    score += np.float32(offset) * weight
    return True


def _root(rising: Callable[[float], float], low: float, high: float) -> float | None:
    """Where a rising function is 0, by bisection; None if not between `low` and `high`."""
    if rising(low) > 0 or rising(high) < 0:
        return None
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _appear(
    rng: np.random.Generator, score: Array, cores: Numbers, threshold: float, change: Change
) -> dict[int, str]:
    """Bring new lesions, in place: parts of the score that would come next. Return their fates."""
    fates: dict[int, str] = {}
    here = int(np.count_nonzero(score >= threshold))
    taken = _near(cores > 0) if change.new else cores > 0
    for extra in NEXT_MM3:
        if len(fates) == change.new:
            break
        level = float(np.partition(score.ravel(), -here - extra)[-here - extra])
        found = _label(score >= level)
        sizes = np.bincount(found.ravel())
        boxes = ndimage.find_objects(found)
        fitting = (sizes >= change.lesion_mm3[0]) & (sizes <= change.lesion_mm3[1])
        for label in rng.permutation(np.flatnonzero(fitting)):
            where = _widen(boxes[label - 1], CLEARANCE_MM)
            own = found[where] == label
            was = float(soften(score[where], threshold)[own].sum())
            if len(fates) == change.new or (own & taken[where]).any() or was > FORERUNNER * sizes[label]:
                continue
            rise = ramp(ndimage.distance_transform_edt(~own), 3.0, 1.0)
            score[where] += np.float32(threshold - level) * rise * ((found[where] == 0) | own)
            taken[where] |= _near(own)
            number = int(cores.max()) + 1
            cores[where][own] = number
            fates[number] = "new"
    return fates


def _near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels less than the clearance away."""
    return np.asarray(ndimage.distance_transform_edt(~mask) <= CLEARANCE_MM)


def _widen(where: Slices, mm: float) -> Slices:
    return tuple(slice(max(0, k.start - int(mm)), k.stop + int(mm)) for k in where)


def tabulate(
    before: NDArray[np.float64], now: NDArray[np.float64], fates: dict[int, str], first: bool
) -> tuple[FollowedLesion, ...]:
    """What became of each lesion that is or was there.

    Parameters
    ----------
    before, now : arrays
        :func:`volumes` in both sessions.
    fates : dict
        Of the lesions that changed.
    first : bool
        There was no session before.
    """
    return tuple(
        FollowedLesion(n, None if first else fates.get(n, "stable"), float(before[n]), float(now[n]))
        for n in range(1, len(now))
        if max(before[n], now[n]) > 0
    )


class Widening(NamedTuple):
    """A displacement: where, on the anatomy's grid, what lies in a voxel now came from."""

    where: Slices
    source: Array  # (3, ...), voxels of the box

    def move(self, data: NDArray[np.generic], order: int = 1) -> NDArray[np.generic]:
        """Displace an image on the anatomy's grid; `order` 0 for labels."""
        out = data.copy()
        out[self.where] = ndimage.map_coordinates(
            data[self.where], self.source, data.dtype, order, mode="nearest"
        )
        return out


def widen_ventricles(csf: Array, near: Array, share: float) -> Widening:
    """Push the ventricles' walls outwards, the tissue around them less and less.

    Parameters
    ----------
    csf : array
        Fraction of fluid on a grid of 1 mm.
    near : array
        exp(-d / 6 mm) for a distance d from the lateral and third ventricles.
    share : float
        By which they grow, to first order.
    """
    where = _widen(_box(near > 0.6), 4 * WIDENING_MM)
    ventricles = csf[where] * ramp(near[where], 0.5, 0.8)
    push = ndimage.gaussian_filter(ventricles, WIDENING_MM)
    growth = float(np.sum(-ndimage.laplace(push) * ventricles))  # the divergence of the displacement
    strength = np.float32(share * float(ventricles.sum()) / growth)
    source = np.indices(push.shape, np.float32)
    for axis in range(3):
        source[axis] += strength * np.gradient(push, axis=axis)
    return Widening(where, source)
