"""What flows: vessels in sulci and at the skull base, and the artefacts of pulsating blood and fluid."""

from __future__ import annotations

import numpy as np

from bids_wmh_uad.phantom.fields import ramp, smooth_field
from bids_wmh_uad.phantom.mimics import Mimic, find_place, tube
from bids_wmh_uad.phantom.spec import Array

BASILAR = ((0, -24, -46), (0, -18, -34), (0, -16, -24), (0, -15, -16))
MIDDLE_CEREBRAL = ((5, 2, -17), (14, 4, -16), (26, 4, -15), (36, 2, -12), (42, -4, -4))
POSTERIOR_CEREBRAL = ((2, -15, -15), (12, -20, -14), (19, -28, -8), (14, -40, -2))
"""Right arteries of the skull base, MNI mm."""
INFLOW = ((-24, -50, -50), (24, 2, -8)), ((-4, -26, -8), (4, 4, 8)), ((-9, -54, -48), (9, -36, -22))
"""Corners of boxes whose fluid shines where it flows in: basal cisterns, third and fourth ventricle; MNI mm."""
POSTERIOR_FOSSA = ((-50, -90, -56), (50, -20, -16))


def find_vessels(rng: np.random.Generator, csf: Array, mni: Array) -> list[Mimic]:
    """Draw arteries at the skull base and short pieces of vessels in sulci, each bright or dark."""
    base = [
        (course, side)
        for course in (BASILAR, MIDDLE_CEREBRAL, POSTERIOR_CEREBRAL)
        for side in ((1,) if course is BASILAR else (-1, 1))
    ]
    mimics = []
    for course, side in base:
        place, part = tube(rng, mni, course, rng.uniform(0.5, 1.3), side=side)
        bright = rng.random() < 0.4
        level = rng.uniform(1.1, 1.8) if bright else rng.uniform(0.05, 0.3)
        mimics.append(Mimic("vessels", place.where, part, level, rng.uniform(0.1, 1.4)))
    sulci = np.flatnonzero(csf[::2, ::2, ::2] > 0.45)
    starts = 2 * np.stack(
        np.unravel_index(rng.choice(sulci, rng.integers(10, 60)), [(n + 1) // 2 for n in csf.shape])
    )
    for start in mni[(slice(None), *starts)].T:
        turns = np.cumsum(rng.standard_normal((3, 3)) * 3, axis=0)
        place, part = tube(rng, mni, [start, *(start + turns)], rng.uniform(0.35, 0.9))
        part *= ramp(csf[place.where], 0.1, 0.4)  # vessels lie in the sulcus, not in cortex
        level = rng.uniform(1.1, 1.9) if rng.random() < 0.7 else rng.uniform(0.05, 0.3)
        mimics.append(Mimic("vessels", place.where, part, level, rng.uniform(0.2, 1.3)))
    return mimics


def find_pulsation(rng: np.random.Generator, csf: Array, brain: Array, mni: Array) -> list[Mimic]:
    """Draw one FLAIR scan's artefacts: bright fluid where it flows in, and ghosts of vessels in the posterior fossa."""
    mimics = []
    for low, high in INFLOW:
        place = find_place(mni, low, high)
        inside = np.ones(place.mni.shape[1:], np.float32)
        for x, a, b in zip(place.mni, low, high, strict=True):
            inside *= ramp(x, a, a + 3) * ramp(x, b, b - 3)
        streaks = ramp(smooth_field(rng, inside.shape, 4.0), rng.uniform(-0.5, 1.5), 2.0)
        mimics.append(
            Mimic("pulsation", place.where, inside * streaks * csf[place.where], rng.uniform(0.5, 1.5), 1.0)
        )
    place = find_place(mni, *POSTERIOR_FOSSA)
    x, y, z = place.mni
    along, across = (y, x) if rng.random() < 0.5 else (x, y)  # phase-encode direction: AP or LR
    start = float(rng.uniform(-40, 0) if along is x else rng.uniform(-80, -60))
    ghosts = np.zeros(place.mni.shape[1:], np.float32)
    for _ in range(rng.integers(1, 4)):
        centre = rng.uniform(-25, 25) if along is y else rng.uniform(-70, -30)
        u2 = ((across - centre) / rng.uniform(2, 5)) ** 2 + (
            (z - rng.uniform(-45, -22)) / rng.uniform(2, 5)
        ) ** 2
        wave = np.cos((along - start) * np.float32(2 * np.pi / rng.uniform(10, 25)))
        ghosts += np.exp(-np.asarray(u2, np.float32)) * np.sign(wave) * np.abs(wave) ** 1.5
    ghosts *= brain[place.where] * ramp(z, -14, -20)
    mimics.append(Mimic("pulsation", place.where, ghosts, 1 + rng.uniform(0.0, 0.4), 1.0, gain=True))
    return mimics
