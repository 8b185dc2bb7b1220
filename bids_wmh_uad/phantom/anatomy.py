"""A random brain: the template deformed, its normal bright structures and lesions-to-be, and a simple head around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from bids_wmh_uad.phantom.fields import distance, ellipsoid, mesh, ramp, smooth_field
from bids_wmh_uad.phantom.flow import find_vessels
from bids_wmh_uad.phantom.lesions import LesionField, make_lesion_field
from bids_wmh_uad.phantom.mimics import Mimic, find_mimics, find_rim, open_temporal_horns
from bids_wmh_uad.phantom.spec import Array, Matrix

BRAIN_BOX = np.array([[-82.0, -116.0, -80.0], [82.0, 84.0, 92.0]])
"""Corners of the anatomy in MNI space, mm."""
HEAD_MARGIN = np.array([[20, 22, 44], [20, 36, 20]])
"""Room for the head around the brain's box, before and after each axis, mm."""


class Anatomy(NamedTuple):
    """Tissue fractions on a 1 mm grid whose first voxel lies at `origin` (mm)."""

    origin: Matrix
    tissues: dict[str, Array]
    brain: Array
    deep: Array  # 1 in the middle of the brain, falling to 0 at its rim
    periventricular: Array  # 1 at the ventricles, falling to 0 within a few mm
    lesions: LesionField
    mimics: list[Mimic]
    mni: Array  # the template's coordinates of each voxel, mm


def _load_template() -> tuple[Array, Array, Array, Array, Matrix]:
    """Load sharpened GM and WM fractions, the brain mask and closeness to the ventricles in MNI space."""
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=1)
    brain = (template.get_fdata(dtype=np.float32) > 0).astype(np.float32)
    gm = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32) * brain
    wm = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32) * brain
    csf = 1.4 * np.clip(brain - gm - wm, 0, 1)  # the average brain blurs its sulci away
    total = np.maximum(gm**2 + wm**2 + csf**2, 1e-6)
    origin = template.affine[:3, 3]
    box = np.array([[-42, -58, -6], [42, 38, 34]]) - origin  # the lateral and third ventricles
    inside = tuple(slice(int(low), int(high)) for low, high in box.T)
    ventricles = np.zeros(brain.shape, bool)
    ventricles[inside] = (csf[inside] > 0.7) & (distance(brain < 0.5)[inside] > 24)
    near = np.exp(-distance(ventricles) / 6)
    return gm**2 / total, wm**2 / total, brain, near, np.asarray(origin, np.float64)


def _warp(maps: Sequence[Array], coordinates: Array) -> Array:
    """Sample maps, the third being the brain mask, where the source lies in or near the brain; 0 elsewhere."""
    vicinity = ndimage.maximum_filter(maps[2][::4, ::4, ::4], 3) > 0
    nearest = np.rint(coordinates / 4).astype(np.int32)
    for index, n in zip(nearest, vicinity.shape, strict=True):
        np.clip(index, 0, n - 1, out=index)
    visited = vicinity[tuple(nearest)]
    out = np.zeros((len(maps), *visited.shape), np.float32)
    for source, target in zip(maps, out, strict=True):
        target[visited] = ndimage.map_coordinates(source, coordinates[:, visited], np.float32, order=1)
    return out


def make_brain(rng: np.random.Generator) -> Anatomy:
    """Deform the template: a new size, larger or smaller ventricles, smooth random shape; find what is bright in it."""
    *maps, template_origin = _load_template()
    shape = tuple(int(n) for n in BRAIN_BOX[1] - BRAIN_BOX[0])
    grid = mesh(BRAIN_BOX[0], shape)
    scale = rng.uniform(0.9, 0.98) * rng.uniform(0.97, 1.03, 3)
    centre, swelling = (0.0, -10.0, 10.0), rng.uniform(-0.1, 0.3)
    distance2 = sum((x - c) ** 2 for x, c in zip(grid, centre, strict=True))
    pull = (1 - swelling * np.exp(-distance2 / (2 * 22.0**2))).astype(np.float32)
    coordinates = np.empty((3, *shape), np.float32)
    for k in range(3):
        warp = smooth_field(rng, shape, 22.0) * 2.2 + smooth_field(rng, shape, 9.0) * 0.7
        coordinates[k] = (grid[k] - centre[k]) * pull / scale[k] + centre[k] + warp - template_origin[k]
    gm, wm, brain, near = _warp(maps, coordinates)
    tissues = {"gm": gm, "wm": wm, "csf": np.clip(brain - gm - wm, 0, 1)}
    deep = np.exp(-distance2 / (2 * 28.0**2)).astype(np.float32)
    coordinates += template_origin.astype(np.float32)[:, None, None, None]
    rng_mimics, rng_lesions = rng.spawn(2)
    open_temporal_horns(rng_mimics, tissues, coordinates)
    mimics = find_mimics(rng_mimics, tissues, near, coordinates)
    mimics += find_vessels(rng_mimics, tissues["csf"], coordinates)
    lesions = _lesions_to_be(rng_lesions, tissues, near, coordinates, mimics)
    mimics.append(find_rim(rng_mimics, brain, coordinates))
    return Anatomy(BRAIN_BOX[0].copy(), tissues, brain, deep, near, lesions, mimics, coordinates)


def _lesions_to_be(
    rng: np.random.Generator, tissues: dict[str, Array], near: Array, mni: Array, mimics: Sequence[Mimic]
) -> LesionField:
    """Lesion field that is low on the midline, below the tentorium, and in structures that are bright themselves."""
    x, y, z = mni
    above_tentorium, off_midline = ramp(z, -30, -10), ramp(np.abs(x), 4, 12)
    below = (z < -20) & (y < -12) & (np.abs(x) < 30)
    lesions = make_lesion_field(rng, tissues, near, np.minimum(above_tentorium, off_midline), below)
    for mimic in mimics:
        if not mimic.gain and mimic.name != "lining":  # caps grow over the lining
            lesions.score[mimic.where] -= 6 * mimic.fraction
    return lesions


def add_head(brain: Anatomy) -> Anatomy:
    """Surround the brain with CSF, skull, scalp fat, face and neck muscle, eyes and nasal air."""
    pad = tuple((int(a), int(b)) for a, b in HEAD_MARGIN.T)
    tissues = {name: np.pad(x, pad) for name, x in brain.tissues.items()}
    mask = np.pad(brain.brain, pad)
    origin = brain.origin - HEAD_MARGIN[0]
    grid = mesh(origin, mask.shape)
    outside = distance(mask > 0.5)
    neck = np.maximum(np.hypot(grid[0] / 1.1, grid[1] + 38) - 52, grid[2] + 50)
    face = ellipsoid(grid, (0, 38, -62), (62, 54, 62))
    body = np.minimum(np.minimum(outside - 13, neck), face)
    depth = distance(body > 0)
    inside = ramp(body, 0.5, -0.5) * (1 - mask)
    eyes = np.minimum(*(ellipsoid(grid, (x, 60, -38), (12, 12, 12)) for x in (-31, 31)))
    nasal_air = ramp(ellipsoid(grid, (0, 62, -62), (14, 24, 22)), 0.5, -0.5)
    fluid = np.maximum(ramp(outside, 2.5, 1.5), ramp(eyes, 0.5, -0.5)) * inside
    bone = ramp(outside, 7, 6) * np.clip(inside - fluid, 0, 1)
    soft = np.clip(inside - fluid - bone, 0, 1) * (1 - nasal_air)
    fat = soft * ramp(depth, 7, 5)
    rim = next(mimic for mimic in brain.mimics if mimic.name == "rim")
    orbits = _orbital_fat(rim, grid, np.clip(inside - ramp(eyes, 0.5, -0.5), 0, 1) * ramp(outside, 1, 2))
    tissues["csf"] += fluid
    tissues |= {"skull": bone, "fat": fat, "muscle": soft - fat}
    return Anatomy(
        origin,
        tissues,
        brain=mask,
        deep=np.pad(brain.deep, pad),
        periventricular=np.pad(brain.periventricular, pad),
        lesions=LesionField(
            np.pad(brain.lesions.score, pad, constant_values=-99), np.pad(brain.lesions.contrast, pad)
        ),
        mimics=[*(_shifted(mimic, [a for a, _ in pad]) for mimic in brain.mimics), orbits],
        mni=brain.mni,
    )


def _orbital_fat(rim: Mimic, grid: Sequence[Array], room: Array) -> Mimic:
    """Fat behind the eyes: bright on T1w, and on FLAIR as much as what lies at the brain's rim."""
    cones = np.minimum(*(ellipsoid(grid, (x, 46, -36), (13, 22, 13)) for x in (-28, 28)))
    part = ramp(cones, 0.5, -0.5) * room
    where = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(part))
    return rim._replace(where=where, fraction=np.ascontiguousarray(part[where]), t1w=1.8)


def _shifted(mimic: Mimic, by: Sequence[int]) -> Mimic:
    """Move a structure to the head's grid, which has `by` more voxels before each axis."""
    where = tuple(slice(k.start + n, k.stop + n) for k, n in zip(mimic.where, by, strict=True))
    return mimic._replace(where=where)
