"""Scanning the anatomy: grids, contrasts, lesions, bias field, slice profile, noise, storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.phantom.anatomy import BRAIN_BOX, Anatomy, add_head, make_brain
from bids_wmh_uad.phantom.fields import rigid, smooth_field
from bids_wmh_uad.phantom.flow import find_pulsation
from bids_wmh_uad.phantom.followup import Course, Widening, follow, tabulate, volumes, widen_ventricles
from bids_wmh_uad.phantom.lesions import soften
from bids_wmh_uad.phantom.mimics import MIMICS, Mimic
from bids_wmh_uad.phantom.spec import Array, Change, Matrix, PhantomSpec, PhantomSubject

T1W_SIGNAL = {
    "csf": (0.10, 0.38), "gm": (0.62, 0.80), "wm": (1.0, 1.0), "lesion": (0.72, 0.97),
    "skull": (0.06, 0.14), "fat": (1.5, 2.3), "muscle": (0.45, 0.70), "scanner_units": (250, 700),
}  # fmt: skip
"""Ranges of a subject's T1w signals, relative to white matter: brain and lesions surround what was measured on
real 1.5 T and 3 T scans, with partial volume."""
FLAIR_SIGNAL = {
    "csf": (0.12, 0.40), "gm": (1.12, 1.42), "wm": (1.0, 1.0), "lesion": (1.55, 2.15),
    "skull": (0.05, 0.12), "fat": (0.35, 0.75), "muscle": (0.25, 0.45), "scanner_units": (100, 350),
}  # fmt: skip
"""Ranges of a subject's FLAIR signals, likewise."""
SIGNAL = {"T1w": T1W_SIGNAL, "FLAIR": FLAIR_SIGNAL}
"""Ranges of signals by the scan's suffix."""

HEAD_SCAN_MARGIN = np.array([[16.0, 18.0, 16.0], [16.0, 32.0, 14.0]])
"""Field of view of a head beyond the brain's box, before and after each axis, mm."""
SCAN_MARGIN = np.full((2, 3), 4.0)
"""Air around what is scanned, before and after each axis, mm."""


class _Acquisition(NamedTuple):
    """A grid and where it samples the anatomy."""

    shape: tuple[int, ...]
    zooms: tuple[float, ...]
    to_world: Matrix
    to_anatomy: Matrix


def _prescribe(
    anatomy: Anatomy, zooms: tuple[float, ...], to_world: Matrix, tilt: Matrix, scale: Matrix
) -> _Acquisition:
    """Lay a grid around the brain, or the head from the chin up, tilted against the anatomy, which seems larger by a scale."""
    margin = SCAN_MARGIN + (HEAD_SCAN_MARGIN if "skull" in anatomy.tissues else 0)
    low, high = BRAIN_BOX[0] - margin[0], BRAIN_BOX[1] + margin[1]
    shape = tuple(int(np.ceil(n)) for n in (high - low) / zooms)
    grid = np.diag([*zooms, 1.0])
    grid[:3, 3] = low
    to_index = np.eye(4)
    to_index[:3, 3] = -anatomy.origin
    return _Acquisition(shape, zooms, to_world @ tilt @ grid, to_index @ np.linalg.inv(scale) @ tilt @ grid)


def _sample(data: Array, scan: _Acquisition) -> Array:
    """Sample at about 1 mm within each voxel, whose samples lie along the last axis."""
    parts = np.maximum(np.round(scan.zooms), 1).astype(int)
    fine = np.diag([*(1 / parts), 1.0])
    fine[:3, 3] = 0.5 / parts - 0.5
    samples = np.empty(np.array(scan.shape) * parts, np.float32)
    ndimage.affine_transform(data, scan.to_anatomy @ fine, output=samples, order=1, mode="nearest")
    blocks = samples.reshape([n for pair in zip(scan.shape, parts, strict=True) for n in pair])
    return blocks.transpose(0, 2, 4, 1, 3, 5).reshape(*scan.shape, -1)


class _Streams(NamedTuple):
    """Random numbers for one purpose: the subject's, the same in all sessions, and the session's."""

    subject: np.random.Generator
    session: np.random.Generator  # in the first session the subject's

    @classmethod
    def of(cls, spec: PhantomSpec, purpose: int) -> _Streams:
        subject = np.random.default_rng([spec.seed, purpose])
        later = len(spec.changes or ())
        return cls(subject, np.random.default_rng([spec.seed, purpose, later]) if later else subject)


class _Position(NamedTuple):
    """How a head lies in the scanner."""

    flair: Matrix  # anatomy -> FLAIR's world
    motion: Matrix  # T1w's world -> FLAIR's world
    tilts: list[Matrix]  # of the FLAIR's and the T1w's slices


def _place(rng: np.random.Generator, spec: PhantomSpec) -> _Position:
    flair = rigid(rng, spec.oblique, 2 * spec.oblique)
    motion = rigid(rng, spec.misalignment, spec.misalignment)
    return _Position(flair, motion, [rigid(rng, spec.oblique / 2, 0) for _ in range(2)])


def _place_again(rng: np.random.Generator, first: _Position, spec: PhantomSpec, limit: float) -> _Position:
    """Lay the head and the slices nearly as in the first session."""
    flair = rigid(rng, limit, limit) @ first.flair
    motion = rigid(rng, spec.misalignment, spec.misalignment)
    return _Position(flair, motion, [rigid(rng, limit, limit) @ tilt for tilt in first.tilts])


def _find_threshold(score: Array, scan: _Acquisition, volume_ml: float) -> float:
    """Find where to cut the score so that the wanted number of voxels is lesion in half of their samples or more."""
    if volume_ml == 0:
        return float(score.max()) + 1
    voxels = max(1, round(volume_ml * 1000 / float(np.prod(scan.zooms))))
    return float(np.partition(_middle(score, scan).ravel(), -voxels)[-voxels])


def _middle(score: Array, scan: _Acquisition) -> Array:
    """Median of a score within each voxel."""
    return np.asarray(np.median(_sample(score, scan), axis=-1), np.float32)


def _image(
    rng: np.random.Generator,
    anatomy: Anatomy,
    lesion: Array,
    signal: Mapping[str, float],
    mimics: Sequence[Mimic],
) -> Array:
    """Noise-free image on the anatomy's grid, with white matter at about 1."""
    is_flair = signal["gm"] > 1
    slow, texture = smooth_field(rng, lesion.shape, 14.0), smooth_field(rng, lesion.shape, 1.6)
    spread = rng.uniform(0.05, 0.09) if is_flair else rng.uniform(0.02, 0.04)
    caps = (
        rng.uniform(0.05, 0.25) if is_flair else 0
    )  # white matter shines around the ventricles, lesion or not
    deep = 1 + 0.4 * (1 / signal["gm"] - 1) * anatomy.deep  # deep grey matter looks more like white
    shading = {
        "gm": deep * (1 + 0.6 * spread * slow + 0.05 * texture),
        "wm": 1 + caps * anatomy.periventricular**2 - spread * slow + 0.03 * texture,
    }
    image = np.zeros_like(lesion)
    for name, fraction in anatomy.tissues.items():
        image += np.float32(signal[name]) * fraction * shading.get(name, 1 + 0.1 * texture)
    for mimic in mimics:
        part, level = image[mimic.where], np.float32(mimic.flair if is_flair else mimic.t1w)
        if mimic.gain:
            part *= 1 + mimic.fraction * (level - 1)
        else:
            part += mimic.fraction * (level * (1 + 0.08 * texture[mimic.where]) - part)
    changed = np.nonzero(lesion)
    bright = 1 + np.float32(signal["lesion"] - 1) * anatomy.lesions.contrast[changed]
    bright *= 1 + 0.05 * np.clip(slow[changed], -2, 2) + 0.03 * texture[changed]
    image[changed] += lesion[changed] * (bright - image[changed])
    return image


class _Body(NamedTuple):
    """What is scanned in a session."""

    anatomy: Anatomy
    lesion: Array  # fraction
    mimics: Sequence[Mimic]
    widening: Widening | None

    def moved(self, data: NDArray[Any], order: int = 1) -> NDArray[Any]:
        """An image of the first session's shape, displaced as the ventricles have widened."""
        return data if self.widening is None else self.widening.move(data, order)


def _draw_signal(streams: _Streams, spec: PhantomSpec, suffix: str) -> dict[str, float]:
    """Draw the contrasts of a subject; those of a later session are the same, its gain nearly, but for another scanner."""
    signal = {name: streams.subject.uniform(*limits) for name, limits in SIGNAL[suffix].items()}
    if spec.changes and spec.changes[-1].other_scanner:
        return {name: streams.session.uniform(*limits) for name, limits in SIGNAL[suffix].items()}
    if spec.changes:
        signal["scanner_units"] *= streams.session.uniform(0.9, 1.1)
    return signal


def _acquire(streams: _Streams, body: _Body, scan: _Acquisition, spec: PhantomSpec, suffix: str) -> Any:
    """Scan: signal, bias field, slice profile, Rician noise, scanner units, storage."""
    signal = _draw_signal(streams, spec, suffix)
    image = body.moved(_image(streams.subject, body.anatomy, body.lesion, signal, body.mimics))
    rng = streams.session
    image *= np.exp(np.float32(spec.bias) * smooth_field(rng, image.shape, 60.0))
    data = _sample(image, scan).mean(axis=-1)
    real, imaginary = np.float32(spec.noise) * rng.standard_normal((2, *scan.shape), np.float32)
    data = np.hypot(data + real, imaginary) * np.float32(signal["scanner_units"])
    if not spec.head:
        data = np.maximum(data, 1) * (_sample(body.moved(body.anatomy.brain), scan).mean(axis=-1) > 0.5)
    return _store(data.astype(spec.dtype), scan, spec.orientation)


def _store(data: NDArray[Any], scan: _Acquisition, orientation: str) -> Any:
    """Make a NIfTI image with equal qform and sform, its axes in the order asked for."""
    nifti: Any = nib.Nifti1Image
    orient: Any = nib.orientations
    image = nifti(data, scan.to_world)
    image = image.as_reoriented(
        orient.ornt_transform(orient.io_orientation(image.affine), orient.axcodes2ornt(orientation))
    )
    affine = image.affine.astype(np.float32)  # as precise as the file
    image = nifti(np.ascontiguousarray(image.dataobj), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return image


def make_subject(spec: PhantomSpec) -> PhantomSubject:
    """Make the scans and the truth of one subject (or session).

    Parameters
    ----------
    spec : PhantomSpec
        What to make; takes a few seconds on one core.

    Returns
    -------
    PhantomSubject
        Images in memory. Every random number comes from the spec's seeds.
    """
    anatomy_seed = spec.seed if spec.anatomy_seed is None else spec.anatomy_seed
    pose, t1w_streams, flair_streams, flow = (_Streams.of(spec, k) for k in (1, 2, 3, 4))
    anatomy = make_brain(np.random.default_rng([anatomy_seed, 0]))
    pulsation = find_pulsation(flow.session, anatomy.tissues["csf"], anatomy.brain, anatomy.mni)
    anatomy = anatomy._replace(mimics=[*anatomy.mimics, *pulsation])
    anatomy = add_head(anatomy) if spec.head else _with_rim(anatomy, spec.mimics)
    mimics = [
        x._replace(fraction=x.fraction * np.float32(spec.mimics)) for x in anatomy.mimics if spec.mimics
    ]
    first = position = _place(pose.subject, spec)
    scale = np.eye(4)
    flair_scan = _prescribe(anatomy, spec.flair_zooms, first.flair, first.tilts[0], scale)
    threshold = _find_threshold(anatomy.lesions.score, flair_scan, spec.lesion_volume_ml)
    if spec.changes:
        position = _place_again(pose.session, first, spec, spec.changes[-1].position)
        zooms = spec.changes[-1].flair_zooms or spec.flair_zooms
        scale = np.diag([*spec.changes[-1].scale, 1.0])
        flair_scan = _prescribe(anatomy, zooms, position.flair, position.tilts[0], scale)
    t1w_pose = np.linalg.inv(position.motion) @ position.flair
    t1w_scan = _prescribe(anatomy, spec.t1w_zooms, t1w_pose, position.tilts[1], scale)
    history = (
        None if spec.changes is None else follow(spec.seed, anatomy.lesions.score, threshold, spec.changes)
    )
    score = anatomy.lesions.score if history is None else history.score
    body = _Body(anatomy, soften(score, threshold), mimics, _widen(anatomy, spec.changes or ()))
    t1w = _acquire(t1w_streams, body, t1w_scan, spec, "T1w")
    flair = _acquire(flair_streams, body, flair_scan, spec, "FLAIR")
    truth = _middle(body.moved(score), flair_scan) >= threshold
    brain = _sample(body.moved(anatomy.brain), flair_scan).mean(axis=-1) > 0.5
    normal = _nearest(body.moved(_label(mimics, anatomy.brain.shape), 0), flair_scan) * ~truth
    lesions, brain_mask, labels = (
        _store(x.astype(np.uint8), flair_scan, spec.orientation) for x in (truth, brain, normal)
    )
    subject = PhantomSubject(
        *(spec, t1w, flair, lesions, brain_mask, labels),
        t1w_to_flair=position.motion,
        first_to_flair=position.flair @ scale @ np.linalg.inv(first.flair),
    )
    return subject if history is None else _number_lesions(subject, history, threshold, body, flair_scan)


def _widen(anatomy: Anatomy, changes: Sequence[Change]) -> Widening | None:
    """Widening of the ventricles since the first session."""
    share = float(np.prod([1 + change.atrophy for change in changes])) - 1
    return widen_ventricles(anatomy.tissues["csf"], anatomy.periventricular, share) if share else None


def _number_lesions(
    subject: PhantomSubject, course: Course, threshold: float, body: _Body, scan: _Acquisition
) -> PhantomSubject:
    """Add the lesions' numbers, and what became of each."""
    changes = subject.spec.changes or ()
    past = body._replace(widening=_widen(body.anatomy, changes[:-1]))
    before = volumes(past.moved(course.before), past.moved(course.numbers, 0), threshold)
    numbers = body.moved(course.numbers, 0)
    now = volumes(body.moved(course.score), numbers, threshold)
    lesions = _store(_nearest(numbers, scan), scan, subject.spec.orientation)
    marked = np.asarray(lesions.dataobj) * np.asarray(subject.lesions.dataobj)
    followed = type(lesions)(marked.astype(np.uint16), lesions.affine, lesions.header)
    return replace(subject, followed=followed, course=tabulate(before, now, course.fates, first=not changes))


def _with_rim(anatomy: Anatomy, strength: float) -> Anatomy:
    """Let the mask of a skull-stripped scan take in what brain extraction often leaves: dura and basal fat."""
    rim = np.float32(strength) * sum(x.fraction for x in anatomy.mimics if x.name == "rim")
    return anatomy._replace(brain=np.clip(anatomy.brain + rim, 0, 1))


def _label(mimics: Sequence[Mimic], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Number, by its name's place in `MIMICS`, of the structure that fills half of a voxel, or 0."""
    labels = np.zeros(shape, np.uint8)
    for mimic in mimics:
        labels[mimic.where][mimic.fraction > 0.5] = 1 + MIMICS.index(mimic.name)
    return labels


def _nearest(labels: NDArray[Any], scan: _Acquisition) -> NDArray[Any]:
    """Labels at the middle of a scan's voxels."""
    out = np.empty(scan.shape, labels.dtype)
    ndimage.affine_transform(labels, scan.to_anatomy, output=out, order=0)
    return out
