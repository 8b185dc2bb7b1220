"""A random brain: the template deformed, its lesions-to-be, and a simple head around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    lesion_score: Array


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Draw Gaussian random noise of unit variance, smooth at `sigma` voxels: noise on a coarse lattice, interpolated."""
    nodes = [np.arange(-3, n / sigma + 3) for n in shape]
    field = rng.standard_normal([len(x) for x in nodes]).astype(np.float32)
    for n, x in zip(shape, nodes, strict=True):
        basis = np.exp(-0.5 * (x[:, None] - np.arange(n) / sigma) ** 2)
        basis /= np.sqrt((basis**2).sum(axis=0))
        field = np.tensordot(field, basis.astype(np.float32), axes=(0, 0))
    return field


def _distance(mask: NDArray[np.bool_]) -> Array:
    """Distance in mm to the nearest voxel of `mask`, at 2 mm, interpolated to 1 mm."""
    out = np.asarray(ndimage.distance_transform_edt(~mask[::2, ::2, ::2], sampling=2.0), np.float32)
    for axis, n in enumerate(mask.shape):
        k = np.arange(n)
        above = np.minimum((k + 1) // 2, out.shape[axis] - 1)
        out = (np.take(out, k // 2, axis) + np.take(out, above, axis)) / 2
    return np.asarray(out, np.float32)


def _mesh(origin: Matrix, shape: tuple[int, ...]) -> list[Array]:
    """Open grid of the 1 mm voxels' coordinates."""
    axes = [np.arange(n, dtype=np.float32) + np.float32(low) for n, low in zip(shape, origin, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _ellipsoid(grid: Sequence[Array], centre: Sequence[float], radii: Sequence[float]) -> Array:
    """Signed distance, roughly, to an ellipsoid's surface (negative inside)."""
    radius2 = sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True))
    return np.asarray((np.sqrt(radius2) - 1) * min(radii), np.float32)


def ramp(x: Array, start: float, stop: float) -> Array:
    """Rise linearly from 0 at `start` to 1 at `stop` (or fall, where stop < start)."""
    return np.asarray(np.clip((x - np.float32(start)) / np.float32(stop - start), 0, 1), np.float32)


def rigid(rng: np.random.Generator, degrees: float, mm: float) -> Matrix:
    """Draw a rigid motion with bounded angles about, and shifts along, each axis."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-degrees, degrees, 3))):
        turn = np.eye(4)
        i, j = [k for k in range(3) if k != axis]
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    matrix[:3, 3] = rng.uniform(-mm, mm, 3)
    return matrix


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
    ventricles[inside] = (csf[inside] > 0.7) & (_distance(brain < 0.5)[inside] > 24)
    near = np.exp(-_distance(ventricles) / 6)
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
    """Deform the template: a new size, larger or smaller ventricles, smooth random shape; add the lesion score."""
    *maps, template_origin = _load_template()
    shape = tuple(int(n) for n in BRAIN_BOX[1] - BRAIN_BOX[0])
    grid = _mesh(BRAIN_BOX[0], shape)
    scale = rng.uniform(0.9, 0.98) * rng.uniform(0.97, 1.03, 3)
    centre, swelling = (0.0, -10.0, 10.0), rng.uniform(-0.1, 0.3)
    distance2 = sum((x - c) ** 2 for x, c in zip(grid, centre, strict=True))
    pull = (1 - swelling * np.exp(-distance2 / (2 * 22.0**2))).astype(np.float32)
    coordinates = np.empty((3, *shape), np.float32)
    for k in range(3):
        warp = smooth_field(rng, shape, 22.0) * 2.2 + smooth_field(rng, shape, 9.0) * 0.7
        coordinates[k] = (grid[k] - centre[k]) * pull / scale[k] + centre[k] + warp - template_origin[k]
    gm, wm, brain, near = _warp(maps, coordinates)
    above_tentorium = ramp(coordinates[2] + np.float32(template_origin[2]), -30, -10)
    off_midline = ramp(np.abs(coordinates[0] + np.float32(template_origin[0])), 4, 12)
    score = _lesion_score(rng, wm, near, np.minimum(above_tentorium, off_midline))
    deep = np.exp(-distance2 / (2 * 28.0**2)).astype(np.float32)
    tissues = {"gm": gm, "wm": wm, "csf": np.clip(brain - gm - wm, 0, 1)}
    return Anatomy(BRAIN_BOX[0].copy(), tissues, brain, deep, near, score)


def _lesion_score(rng: np.random.Generator, wm: Array, near: Array, likely: Array) -> Array:
    """Field whose upper level sets are lesions: confluent near the ventricles, punctate elsewhere, always in WM."""
    punctate = smooth_field(rng, wm.shape, rng.uniform(2.0, 3.0))
    confluent = smooth_field(rng, wm.shape, 7.0)
    score = 0.7 * punctate + 0.6 * confluent + rng.uniform(2.5, 4.0) * near
    inner = ramp(ndimage.gaussian_filter(wm, 1.5), 0.5, 1.0)  # spares the thin white matter of the gyri
    return np.asarray(score - 5 * (1 - inner) - 1.5 * (1 - likely), np.float32)


def add_head(brain: Anatomy) -> Anatomy:
    """Surround the brain with CSF, skull, scalp fat, face and neck muscle, eyes and nasal air."""
    pad = tuple((int(a), int(b)) for a, b in HEAD_MARGIN.T)
    tissues = {name: np.pad(x, pad) for name, x in brain.tissues.items()}
    mask = np.pad(brain.brain, pad)
    origin = brain.origin - HEAD_MARGIN[0]
    grid = _mesh(origin, mask.shape)
    outside = _distance(mask > 0.5)
    neck = np.maximum(np.hypot(grid[0] / 1.1, grid[1] + 38) - 52, grid[2] + 50)
    face = _ellipsoid(grid, (0, 38, -62), (62, 54, 62))
    body = np.minimum(np.minimum(outside - 13, neck), face)
    depth = _distance(body > 0)
    inside = ramp(body, 0.5, -0.5) * (1 - mask)
    eyes = np.minimum(*(_ellipsoid(grid, (x, 60, -38), (12, 12, 12)) for x in (-31, 31)))
    nasal_air = ramp(_ellipsoid(grid, (0, 62, -62), (14, 24, 22)), 0.5, -0.5)
    fluid = np.maximum(ramp(outside, 2.5, 1.5), ramp(eyes, 0.5, -0.5)) * inside
    bone = ramp(outside, 7, 6) * np.clip(inside - fluid, 0, 1)
    soft = np.clip(inside - fluid - bone, 0, 1) * (1 - nasal_air)
    fat = soft * ramp(depth, 7, 5)
    tissues["csf"] += fluid
    tissues |= {"skull": bone, "fat": fat, "muscle": soft - fat}
    return Anatomy(
        origin,
        tissues,
        brain=mask,
        deep=np.pad(brain.deep, pad),
        periventricular=np.pad(brain.periventricular, pad),
        lesion_score=np.pad(brain.lesion_score, pad, constant_values=-99),
    )
