"""Where lesions lie: rules on drawn volumes, and ventricles against the phantom's truth."""

from __future__ import annotations

from typing import TypeAlias

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bids_wmh_uad.core.image.intensity import fit_scaling
from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion import landmarks
from bids_wmh_uad.core.lesion.candidates import fill_ventricles
from bids_wmh_uad.core.lesion.landmarks import Landmark, Tissue, map_landmarks
from bids_wmh_uad.core.lesion.regions import REGIONS, place_lesions
from bids_wmh_uad.errors import BadDataError

SPACING = (1.0, 1.0, 3.0)
Phantom: TypeAlias = tuple[Tissue, nib.Nifti1Image, np.ndarray, np.ndarray]


def volume(**boxes: tuple[slice, slice, slice]) -> np.ndarray:
    labels = {
        "ventricles": Landmark.VENTRICLES,
        "infratentorial": Landmark.INFRATENTORIAL,
        "cortex": Landmark.CORTEX,
    }
    drawn = np.zeros((60, 20, 12), np.uint8)
    for name, box in boxes.items():
        drawn[box] = labels[name]
    return drawn


MAP = volume(
    ventricles=np.s_[0:5, :, 4:8], cortex=np.s_[55:60, :, :], infratentorial=np.s_[:, :, 0:2]
)  # fmt: skip


def lesion(box: tuple[slice, slice, slice], label: int = 1) -> np.ndarray:
    drawn = np.zeros(MAP.shape, np.int32)
    drawn[box] = label
    return drawn


@pytest.mark.parametrize(
    ("box", "region", "distance"),
    [
        (np.s_[7:12, 8:10, 5:6], "periventricular", 3.0),
        (np.s_[8:12, 8:10, 5:6], "deep", 4.0),
        (np.s_[52:54, 8:10, 5:6], "juxtacortical", 48.0),
        (np.s_[51:53, 8:10, 5:6], "deep", 47.0),
        (np.s_[7:54, 8:10, 5:6], "periventricular", 3.0),  # reaches both: the ventricle comes first
        (np.s_[0:5, 8:10, 1:2], "infratentorial", 9.0),
        (np.s_[20:22, 8:10, 0:3], "infratentorial", float(np.hypot(16, 6))),  # two thirds of it
        (np.s_[2:4, 8:10, 8:9], "periventricular", 3.0),  # a slice away
    ],
)
def test_each_rule_at_its_limit(box: tuple[slice, slice, slice], region: str, distance: float) -> None:
    ((place,), _) = place_lesions(lesion(box), MAP, SPACING)
    assert place.region == region
    assert place.ventricle_distance_mm == pytest.approx(distance)


def test_the_ten_millimetre_rule_counts_voxels_and_no_posterior_fossa() -> None:
    above = lesion(np.s_[5:30, 8:10, 5:6])
    _, near = place_lesions(above, MAP, SPACING)
    assert near == pytest.approx(10 * 2 * 3 / 1000)  # x from 5 to 14: 1 to 10 mm from the voxel at 4
    _, below = place_lesions(lesion(np.s_[0:5, 8:10, 1:2]), MAP, SPACING)
    assert below == 0


def test_no_lesion_and_no_ventricle() -> None:
    assert place_lesions(np.zeros(MAP.shape, np.int32), MAP, SPACING) == ([], 0.0)
    ((place,), near) = place_lesions(lesion(np.s_[7:9, 8:10, 5:6]), np.zeros_like(MAP), SPACING)
    assert (place.region, place.ventricle_distance_mm, near) == ("deep", np.inf, 0.0)


@given(st.integers(0, 2**32 - 1))
def test_distances_are_those_of_the_distance_transform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, targets = rng.random((2, 9, 8, 7)) < rng.uniform(0.01, 0.5, (2, 1, 1, 1))
    spacing = rng.uniform(0.5, 5, 3)
    found = landmarks.distances(points, targets, spacing)
    if targets.any():
        expected = ndimage.distance_transform_edt(~targets, sampling=spacing)[points]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        bound = 1.000001 * float(np.median(expected)) if expected.size else 1.0  # no tie
        near = landmarks.distances(points, targets, spacing, bound) <= bound
        np.testing.assert_array_equal(near, expected <= bound)
    else:
        assert np.isinf(found).all()


@given(st.integers(0, 2**32 - 1))
def test_every_lesion_has_one_region_and_order_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, count = ndimage.label(rng.random(MAP.shape) < 0.02)
    labels = labels.astype(np.int32)
    places, near = place_lesions(labels, MAP, SPACING)
    assert len(places) == count
    assert {place.region for place in places} <= set(REGIONS)
    assert near <= np.count_nonzero(labels) * 3 / 1000 + 1e-9
    turned = np.where(labels > 0, count + 1 - labels, 0).astype(np.int32)
    assert place_lesions(turned, MAP, SPACING) == (places[::-1], near)


@pytest.fixture(scope="module")
def scan() -> Phantom:
    """A phantom whose scans share a grid, the truth of its ventricles, and the share of choroid plexus."""
    from bids_wmh_uad.imaging import resampling, templates
    from bids_wmh_uad.phantom import PhantomSpec, make_subject
    from bids_wmh_uad.phantom.anatomy import make_brain

    size = (1.5, 1.5, 3.0)
    subject = make_subject(
        PhantomSpec(
            seed=3,
            lesion_volume_ml=10,
            head=False,
            flair_zooms=size,
            t1w_zooms=size,
            misalignment=0,
            oblique=0,
        )
    )
    flair, t1w = (nib.as_closest_canonical(image) for image in (subject.flair, subject.t1w))
    anatomy = make_brain(np.random.default_rng([3, 0]))
    place = np.eye(4)
    place[:3, 3] = anatomy.origin
    near = resampling.resample(nib.Nifti1Image(anatomy.periventricular, place), flair, np.eye(4))
    share = np.zeros(anatomy.brain.shape, np.float32)
    for mimic in anatomy.mimics:
        if mimic.name == "plexus":
            share[mimic.where] = np.maximum(share[mimic.where], mimic.fraction)
    plexus = resampling.resample(nib.Nifti1Image(share, place), flair, np.eye(4))
    mask = nib.as_closest_canonical(subject.brain).get_fdata() > 0
    grey, white = (resampling.resample(templates.template(name), flair, SHRINK) for name in ("GM", "WM"))
    data = [image.get_fdata(dtype=np.float32) for image in (flair, t1w)]
    z = [fit_scaling(contrast, mask & (white > 0.9)).apply(contrast) for contrast in data]
    x, y, _ = np.moveaxis(np.argwhere(near > 0.85) @ flair.affine[:3, :3].T + flair.affine[:3, 3], -1, 0)
    truth = np.zeros(mask.shape, bool)
    truth[near > 0.85] = (np.abs(x) > 10) | (y > -18)  # without the cisterns behind the midbrain
    return Tissue(z[0], z[1], mask, grey), flair, truth, plexus


SHRINK = np.diag([0.95, 0.95, 0.95, 1.0])
"""Roughly what registration would find: phantoms are somewhat smaller than the template."""


def test_ventricles_are_the_phantoms(scan: Phantom) -> None:
    from bids_wmh_uad.imaging.atlas import atlas_on

    tissue, grid, truth, plexus = scan
    atlas = atlas_on(grid, SHRINK)
    labels, found = map_landmarks(tissue, atlas, voxel_sizes(grid.affine))
    assert found
    ventricles = labels == Landmark.VENTRICLES

    def overlap(mask: np.ndarray, wanted: np.ndarray) -> float:
        return 2 * np.count_nonzero(mask & wanted) / (np.count_nonzero(mask) + np.count_nonzero(wanted))

    fluid = truth & (plexus < 0.25)  # what is dark: half a voxel of plexus is no darker than white matter
    assert overlap(ventricles, fluid) > 0.8
    assert overlap(ventricles, fluid) > overlap(atlas[Landmark.VENTRICLES], truth) + 0.2  # worth the effort
    assert not ventricles[truth & (plexus > 0.5)].any()
    filled = fill_ventricles(ventricles, voxel_sizes(grid.affine))
    assert overlap(filled, truth) > overlap(ventricles, truth)
    for found in (ventricles, filled):
        away = landmarks.distances(found, truth, grid.header.get_zooms())
        assert np.percentile(away, 95) < 6  # no leak into fissures


def test_where_nothing_is_dark_the_atlas_is_taken(scan: Phantom) -> None:
    from bids_wmh_uad.imaging.atlas import atlas_on

    tissue, grid, _, _ = scan
    inverted = Tissue(-tissue.flair_z, tissue.t1w_z, tissue.mask, tissue.grey)
    labels, found = map_landmarks(inverted, atlas_on(grid, SHRINK), voxel_sizes(grid.affine))
    assert not found
    assert np.count_nonzero(labels == Landmark.VENTRICLES)


def test_no_grey_matter_is_said(scan: Phantom) -> None:
    tissue = scan[0]
    with pytest.raises(BadDataError, match="grey matter"):
        Tissue(tissue.flair_z, tissue.t1w_z, tissue.mask, np.zeros_like(tissue.grey)).levels()


def test_the_atlas_has_the_landmarks_of_the_template() -> None:
    from bids_wmh_uad.imaging.atlas import LANDMARKS_FILE

    atlas = nib.load(LANDMARKS_FILE)

    def at(x: float, y: float, z: float) -> int:
        index = np.rint(np.linalg.inv(atlas.affine) @ [x, y, z, 1])[:3].astype(int)
        return int(np.asanyarray(atlas.dataobj)[tuple(index)])

    # landmarks of MNI space
    assert {at(-24, -64, -30), at(30, -60, -44), at(0, -26, -34), at(2, -20, -12)} == {
        Landmark.INFRATENTORIAL
    }
    assert {at(-12, -18, 8), at(26, 2, 2)} == {Landmark.DEEP_GREY}
    assert {at(-14, -20, 24), at(26, -48, 8)} == {Landmark.VENTRICLES}
    assert {at(-40, -70, -10), at(-24, -80, 0), at(0, -14, 0), at(-50, -20, -24)}.isdisjoint(
        {Landmark.INFRATENTORIAL}
    )
