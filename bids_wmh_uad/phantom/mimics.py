"""Normal structures that are bright on FLAIR: what a detector has to tell from lesions, none of it in the truth.

Each is found at its place in the template, whose coordinates a brain carries with it, and drawn anew for each
subject: its shape, and how bright it is, from hardly there to as bright as a faint lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from bids_wmh_uad.phantom.fields import distance, ramp, smooth_field
from bids_wmh_uad.phantom.spec import Array

MIMICS = ("plexus", "septum", "lining", "cortex", "stem", "rim", "vessels", "pulsation")
"""Names of normal bright structures and artefacts; the septum's includes the fornix."""

Slices = tuple[slice, ...]
Point = tuple[float, float, float]

TEMPORAL_HORN = ((29, -38, -3), (34, -30, -10), (35, -22, -15), (33, -14, -18), (30, -8, -20))
"""Course of the right temporal horn beside the hippocampus, MNI mm; all courses are mirrored at x = 0."""
THIRD_ROOF = ((0, -2, 6), (0, -10, 9), (0, -20, 9))
FOURTH = ((0, -46, -36), (6, -45, -40), (14, -42, -42))
"""Plexus of the fourth ventricle, towards its lateral opening."""
FORNIX = ((2, 3, -4), (2, 1, 4), (2, -6, 12), (4, -20, 15), (11, -31, 12), (20, -37, 5), (27, -33, -3))
"""Column, body, crus, fimbria."""
HIPPOCAMPUS = ((22, -4, -20), (26, -14, -19), (29, -24, -13), (27, -34, -5))
"""Amygdala to tail."""
INSULA = ((37, 16, -4), (39, 6, -2), (39, -4, 2), (38, -14, 6), (37, -8, -8))
CINGULUM = (
    (5, 32, -2),
    (5, 38, 12),
    (5, 28, 26),
    (5, 12, 36),
    (5, -8, 40),
    (5, -26, 38),
    (5, -42, 32),
    (6, -50, 16),
)
"""Cingulate cortex, around the corpus callosum."""
MEDULLA = ((0, -38, -68), (0, -40, -58), (0, -40, -50), (0, -37, -43))
FOURTH_FLOOR = ((0, -33, -24), (0, -36, -30), (0, -39, -36), (0, -42, -43))
HORN_TIPS = ((13, 26, 2), (17, 30, 6), (20, 24, 14), (30, -54, 6), (27, -48, 14))
"""Frontal and occipital horns, where the lining is brightest."""
RIM = ((40, 16, -32), (48, 4, -36), (0, 0, -26), (20, 36, -22), (30, 44, -12), (46, -50, -30), (0, -40, 74))
"""Temporal poles, sella, orbits, sigmoid sinuses, vertex: where masks take in dura or fat."""


class Mimic(NamedTuple):
    """A structure, or an artefact, and what it does to the signals (white matter: 1)."""

    name: str
    where: Slices  # of the anatomy's grid
    fraction: Array
    flair: float
    t1w: float
    gain: bool = False  # the signals multiply those of the tissue, rather than take their place


class Place(NamedTuple):
    """A box of the anatomy's grid with the template's coordinates of its voxels, mm."""

    where: Slices
    mni: Array


def find_place(mni: Array, low: Sequence[float], high: Sequence[float]) -> Place:
    """Smallest box with every voxel whose template coordinates lie between two corners."""
    every = (slice(None), *[slice(None, None, 4)] * 3)
    inside = np.ones(mni[every].shape[1:], bool)
    for x, a, b in zip(mni[every], low, high, strict=True):
        inside &= (x > a - 4) & (x < b + 4)
    where = tuple(
        slice(int(4 * k.min()), int(4 * k.max()) + 4) if len(k) else slice(0, 1) for k in np.nonzero(inside)
    )
    return Place(where, mni[(slice(None), *where)])


def tube(
    rng: np.random.Generator, mni: Array, course: Sequence[Sequence[float]], radius: float, *, side: int = 1
) -> tuple[Place, Array]:
    """Draw a tube of varying thickness, soft at its wall, along a course that wriggles a little."""
    ends = np.array(course, float) * (side, 1, 1)
    length = np.r_[0, np.linalg.norm(np.diff(ends, axis=0), axis=1).cumsum()]
    steps = np.linspace(0, length[-1], max(2, int(length[-1] / max(1.0, radius / 2))))
    points = np.stack([np.interp(steps, length, x) for x in ends.T])
    points += ndimage.gaussian_filter1d(rng.standard_normal(points.shape), 3) * 1.0
    radii = radius * np.exp(0.3 * ndimage.gaussian_filter1d(rng.standard_normal(len(steps)), 2) * 2.5)
    margin = 2 * radius + 1
    place = find_place(mni, points.min(axis=1) - margin, points.max(axis=1) + margin)
    depth = np.full(place.mni.shape[1:], -9, np.float32)
    for point, r in zip(points.T, radii, strict=True):
        near = sum((x - np.float32(c)) ** 2 for x, c in zip(place.mni, point, strict=True))
        np.maximum(depth, np.float32(r) - np.sqrt(near), out=depth)
    return place, ramp(depth, -0.6, 0.6)


def glow(mni: Array, points: Sequence[Point], radius: float) -> tuple[Place, Array]:
    """Gaussians around points of both hemispheres: 1 at each point, 0.6 at `radius` mm, cut at 2.5 radii."""
    both = np.array([(side * x, y, z) for x, y, z in points for side in ((-1, 1) if x else (1,))], np.float32)
    place = find_place(mni, both.min(axis=0) - 2.5 * radius, both.max(axis=0) + 2.5 * radius)
    nearest = np.full(place.mni.shape[1:], np.inf, np.float32)
    for point in both:
        np.minimum(nearest, sum((x - c) ** 2 for x, c in zip(place.mni, point, strict=True)), out=nearest)
    return place, np.exp(nearest / np.float32(-2 * radius**2))


def open_temporal_horns(rng: np.random.Generator, tissues: dict[str, Array], mni: Array) -> None:
    """Put fluid into the temporal horns, in place: the template's average has none there."""
    for side in (-1, 1):
        place, fluid = tube(rng, mni, TEMPORAL_HORN, rng.uniform(0.6, 2.8), side=side)
        for name in ("gm", "wm"):
            tissues[name][place.where] *= 1 - fluid
        tissues["csf"][place.where] = np.maximum(tissues["csf"][place.where], fluid)


def find_mimics(rng: np.random.Generator, tissues: dict[str, Array], near: Array, mni: Array) -> list[Mimic]:
    """Draw a subject's normal bright structures.

    Parameters
    ----------
    rng : Generator
    tissues : dict of arrays
        Fractions of grey matter, white matter and fluid.
    near : array
        exp(-d / 6 mm) for a distance d from the lateral and third ventricles.
    mni : array of shape (3, ...)
        The template's coordinates of each voxel, mm.
    """
    return [
        *_plexus(rng, tissues["csf"], near, mni),
        *_midline(rng, tissues["csf"], mni),
        _lining(rng, tissues["csf"], near, mni),
        *_cortex(rng, tissues["gm"], mni),
        *_stem(rng, tissues, mni),
    ]


def _plexus(rng: np.random.Generator, csf: Array, near: Array, mni: Array) -> list[Mimic]:
    """Choroid plexus: blobs in the atria, a fringe on the bodies' floor, strips in temporal horns, 3rd and 4th."""
    flair, t1w = rng.uniform(0.9, 1.9), rng.uniform(0.55, 0.85)
    parts: list[tuple[Place, Array]] = []
    for side in (-1, 1):
        low, high = sorted((side * 17.0, side * 36.0))
        place = find_place(mni, (low, -48, -4), (high, -26, 20))
        fluid = (csf[place.where] > 0.6) & (near[place.where] > 0.7)
        inside = np.argwhere(fluid)
        blob = np.zeros(fluid.shape, np.float32)
        grid = np.ogrid[tuple(slice(n) for n in fluid.shape)]
        for centre in inside[rng.integers(0, len(inside), rng.integers(1, 4))] if len(inside) else ():
            radii = rng.uniform(1.5, 4.0) * rng.uniform(0.8, 1.3, 3)
            u2 = sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True))
            np.maximum(blob, np.exp(-(np.asarray(u2, np.float32) ** 2)), out=blob)
        parts.append((place, blob))
        parts.append(tube(rng, mni, TEMPORAL_HORN, rng.uniform(0.5, 1.8), side=side))
    place = find_place(mni, (-22, -34, 6), (22, 6, 28))
    water = csf[place.where]
    floor = water * (1 - np.roll(water, 2, axis=2)) * (near[place.where] > 0.7)
    parts.append((place, floor * ramp(smooth_field(rng, water.shape, 3.0), -1.0, 0.5)))
    parts.append(tube(rng, mni, THIRD_ROOF, rng.uniform(0.5, 1.4)))
    parts += [tube(rng, mni, FOURTH, rng.uniform(0.4, 2.0), side=side) for side in (-1, 1)]
    strength = rng.uniform(0.6, 1.0, len(parts))
    return [
        Mimic("plexus", place.where, s * part * np.sqrt(csf[place.where]), flair, t1w)
        for s, (place, part) in zip(strength, parts, strict=True)
    ]


def _midline(rng: np.random.Generator, csf: Array, mni: Array) -> list[Mimic]:
    """Septum pellucidum, a sheet of 1 to 2 mm between the lateral ventricles, and fornix."""
    place = find_place(mni, (-6, -16, 2), (6, 28, 24))
    x, y, z = place.mni
    beside = ndimage.maximum_filter1d(csf[place.where], 9, axis=0)
    fade = ramp(y, -16, -10) * ramp(y, 28, 22) * ramp(z, 2, 6) * ramp(z, 25, 22)
    sheet = np.exp(-((x / np.float32(rng.uniform(0.6, 1.2))) ** 2)) * beside * fade
    septum = Mimic("septum", place.where, sheet, rng.uniform(0.9, 1.6), rng.uniform(0.7, 0.95))
    level, t1w, radius = rng.uniform(0.95, 1.55), rng.uniform(0.8, 1.0), rng.uniform(1.3, 2.2)
    fornix = [tube(rng, mni, FORNIX, radius, side=side) for side in (-1, 1)]
    return [septum, *(Mimic("septum", place.where, part, level, t1w) for place, part in fornix)]


def _lining(rng: np.random.Generator, csf: Array, near: Array, mni: Array) -> Mimic:
    """Ependyma: a rim of a millimetre along the ventricles' walls, twice as thick at the horns' tips."""
    place = find_place(mni, (-44, -66, -12), (44, 42, 38))
    fluid = csf[place.where] * ramp(near[place.where], 0.5, 0.8)
    rim = ndimage.maximum_filter(fluid, 3) * (1 - fluid)
    tips = np.zeros_like(rim)
    inner, part = glow(mni, HORN_TIPS, 5.0)
    overlap = tuple(
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(place.where, inner.where, strict=True)
    )
    tips[_within(overlap, place.where)] = part[_within(overlap, inner.where)]
    thick = tips * ndimage.maximum_filter(fluid, 5) * (1 - fluid)
    uneven = ramp(smooth_field(rng, rim.shape, 5.0), -2.0, 1.0)
    fraction = np.clip(rng.uniform(0.2, 0.9) * rim * uneven + rng.uniform(0.1, 0.9) * thick, 0, 1)
    return Mimic("lining", place.where, fraction, rng.uniform(1.2, 1.7), rng.uniform(0.75, 0.95))


def _within(where: Slices, outer: Slices) -> Slices:
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(where, outer, strict=True))


def _cortex(rng: np.random.Generator, gm: Array, mni: Array) -> list[Mimic]:
    """Insula, cingulate cortex, hippocampus and amygdala: brighter than other cortex."""
    mimics = []
    for course, radius in ((INSULA, 6.0), (CINGULUM, 7.0), (HIPPOCAMPUS, 5.0)):
        place, part = glow(mni, course, radius)
        uneven = 1 + 0.25 * smooth_field(rng, part.shape, 4.0)
        gain = rng.uniform(1.0, 1.22)
        mimics.append(Mimic("cortex", place.where, part * gm[place.where] * uneven, gain, 0.98, gain=True))
    return mimics


def _stem(rng: np.random.Generator, tissues: dict[str, Array], mni: Array) -> list[Mimic]:
    """Medulla, cord and the fourth ventricle's floor: brighter than other white matter."""
    mimics = []
    for course, radius in ((MEDULLA, 6.0), (FOURTH_FLOOR, 2.5)):
        place, part = glow(mni, course, radius)
        part *= tissues["gm"][place.where] + tissues["wm"][place.where]
        mimics.append(
            Mimic("stem", place.where, part, rng.uniform(1.0, 1.2), rng.uniform(0.92, 1.0), gain=True)
        )
    return mimics


def find_rim(rng: np.random.Generator, brain: Array, mni: Array) -> Mimic:
    """Dura and orbital fat: patches of a shell of 1 to 2.5 mm around the brain, most of them at its base."""
    outside = distance(brain > 0.5)
    shell = ramp(outside, *(rng.uniform(1.5, 3.0) + np.array([0.5, -0.5]))) * (1 - brain)
    index = np.nonzero(shell)
    coarse = smooth_field(rng, tuple(n // 4 + 2 for n in brain.shape), 2.5)
    patches = ndimage.map_coordinates(coarse, np.array(index) / 4, order=1)
    weight = np.zeros(brain.shape, np.float32)
    place, part = glow(mni, RIM, 12.0)
    weight[place.where] = part
    shell[index] *= ramp(patches + 2.2 * weight[index], rng.uniform(1.4, 2.4), 2.8)
    return Mimic(
        "rim", tuple(slice(0, n) for n in brain.shape), shell, rng.uniform(1.0, 1.9), rng.uniform(0.5, 1.8)
    )
