"""Phantoms are as hard as people: normal structures shine, lesions are small, faint or confluent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.phantom import PhantomSpec, PhantomSubject, make_subject
from bids_wmh_uad.phantom.fields import smooth_field
from bids_wmh_uad.phantom.lesions import SMALL_MM3
from bids_wmh_uad.phantom.mimics import MIMICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Thin slices and no bias, so that structures of a millimetre are seen; neither noise nor motion matters here.
CONTROL = PhantomSpec(
    seed=12, lesion_volume_ml=0, head=False, flair_zooms=(1, 1, 2), t1w_zooms=(1.5, 1.5, 1.5), bias=0
)
PATIENT = replace(CONTROL, lesion_volume_ml=60)


@pytest.fixture(scope="module")
def control() -> PhantomSubject:
    return make_subject(CONTROL)


@pytest.fixture(scope="module")
def early() -> PhantomSubject:
    """The same patient, years before."""
    return make_subject(replace(PATIENT, lesion_volume_ml=2))


@pytest.fixture(scope="module")
def patient() -> PhantomSubject:
    return make_subject(PATIENT)


def _data(image: Any) -> NDArray[Any]:
    return np.asarray(image.dataobj, np.float64)


def _lesion_sizes(subject: PhantomSubject) -> NDArray[Any]:
    """Volumes of the truth's components, mm3."""
    labels, _ = ndimage.label(_data(subject.lesions) > 0, np.ones((3, 3, 3)))
    return np.bincount(labels.ravel())[1:] * float(abs(np.linalg.det(subject.lesions.affine)))


def test_every_structure_is_there_and_is_no_lesion(control: PhantomSubject, patient: PhantomSubject) -> None:
    for subject in (control, patient):
        labels = _data(subject.mimics)
        counts = {name: np.count_nonzero(labels == k) for k, name in enumerate(MIMICS, start=1)}
        assert min(counts.values()) > 20, counts
        assert not ((labels > 0) & (_data(subject.lesions) > 0)).any()
    assert not _data(control.lesions).any()


def test_lesions_spare_structures(control: PhantomSubject, patient: PhantomSubject) -> None:
    """Even at 60 mL: only caps may grow over the lining, and lesions into parts that artefacts cross."""
    lesions, labels = _data(patient.lesions) > 0, _data(control.mimics)
    for name in ("plexus", "septum", "rim", "vessels"):
        assert np.mean(lesions[labels == 1 + MIMICS.index(name)]) < 0.02, name


def test_normal_structures_reach_lesion_brightness(control: PhantomSubject, patient: PhantomSubject) -> None:
    flair, labels, lesions = _data(control.flair), _data(control.mimics), _data(patient.lesions) > 0
    faint = np.percentile(_data(patient.flair)[lesions], 20)
    reach = {name: np.percentile(flair[labels == k], 98) for k, name in enumerate(MIMICS, start=1)}
    assert sum(level > faint for level in reach.values()) >= 4, (faint, reach)


def test_structures_can_be_left_out(control: PhantomSubject) -> None:
    without = make_subject(replace(CONTROL, mimics=0))
    assert not _data(without.mimics).any()
    assert _data(without.brain).sum() < _data(control.brain).sum()  # dura in the mask
    names = ("plexus", "septum", "lining", "stem")
    for name in names:
        there = _data(control.mimics) == 1 + MIMICS.index(name)
        there &= _data(without.brain) > 0
        assert _data(control.flair)[there].mean() > _data(without.flair)[there].mean(), name


def test_small_lesions_and_confluent_caps(patient: PhantomSubject) -> None:
    sizes = _lesion_sizes(patient)
    small = (sizes >= SMALL_MM3[0]) & (sizes <= SMALL_MM3[1])
    assert small.sum() >= 30
    assert small.mean() > 0.35
    assert sizes.max() > 0.25 * sizes.sum()
    assert np.sort(sizes)[-4:].sum() > 0.6 * sizes.sum()


def test_small_lesions_at_a_low_load(early: PhantomSubject) -> None:
    sizes = _lesion_sizes(early)
    assert ((sizes >= SMALL_MM3[0]) & (sizes <= SMALL_MM3[1])).sum() >= 8


def test_lesions_differ_in_contrast(patient: PhantomSubject) -> None:
    labels, count = ndimage.label(_data(patient.lesions) > 0, np.ones((3, 3, 3)))
    flair = _data(patient.flair)
    levels = ndimage.mean(flair, labels, np.arange(1, count + 1)) / np.median(flair[flair > 0])
    assert np.percentile(levels, 90) > np.percentile(levels, 10) + 0.2


def test_lesions_only_grow(early: PhantomSubject, patient: PhantomSubject) -> None:
    assert (_data(patient.lesions) > 0)[_data(early.lesions) > 0].all()


def test_noise_is_smooth_and_of_unit_variance() -> None:
    field = smooth_field(np.random.default_rng(0), (60, 70, 80), 3.0)
    assert field.shape == (60, 70, 80)
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(1, abs=0.1)
    for axis in range(3):
        shifted = np.roll(field, 3, axis)
        assert np.corrcoef(field.ravel(), shifted.ravel())[0, 1] == pytest.approx(np.exp(-0.25), abs=0.08)
