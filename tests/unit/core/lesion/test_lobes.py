"""Lobes: the shipped atlas lies where the template's lobes are, and lesions get the lobe of the most of their voxels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.core.lesion.lobes import LOBES, OTHER, lobes_of, lobes_of_lesions
from bids_wmh_uad.imaging import templates
from bids_wmh_uad.imaging.atlas import lobes_on

PLACES = {
    (-30, 40, 25): "left_frontal", (32, 30, 30): "right_frontal", (-45, -35, 45): "left_parietal",
    (50, -40, 40): "right_parietal", (-55, -15, -15): "left_temporal", (55, -15, -15): "right_temporal",
    (-20, -90, 0): "left_occipital", (22, -88, 2): "right_occipital", (-5, 20, 32): "left_cingulate",
    (5, -30, 36): "right_cingulate", (-36, 8, 2): "left_insula", (37, 6, 2): "right_insula",
    (-26, 2, 4): OTHER, (12, -18, 8): OTHER,
}  # fmt: skip
"""Points in MNI space, mm: of the last two, the first is in the putamen, the other in the thalamus."""


@pytest.fixture(scope="module")
def atlas() -> tuple[np.ndarray, nib.Nifti1Image]:
    grid = templates.template("T1w", 2)
    return lobes_on(grid, np.eye(4)), grid


@pytest.mark.parametrize(("place", "lobe"), PLACES.items())
def test_known_places_have_their_lobes(
    atlas: tuple[np.ndarray, nib.Nifti1Image], place: tuple[int, int, int], lobe: str
) -> None:
    labels, grid = atlas
    voxel = np.rint(np.linalg.inv(grid.affine) @ [*place, 1])[:3].astype(int)
    label = labels[tuple(voxel)]
    assert (LOBES[label - 1] if label else OTHER) == lobe


def test_every_lobe_has_its_mirror_and_its_side(atlas: tuple[np.ndarray, nib.Nifti1Image]) -> None:
    labels, grid = atlas
    brain = np.asanyarray(grid.dataobj) > 0.15
    x = nib.affines.apply_affine(grid.affine, np.argwhere(brain))[:, 0]
    inside = labels[brain]
    sizes = np.bincount(inside, minlength=1 + len(LOBES))[1:]
    assert (sizes > 2000).all()  # 16 mL
    np.testing.assert_allclose(sizes[::2] / sizes[1::2], 1, atol=0.12)
    for number, name in enumerate(LOBES, start=1):
        side = x[inside == number]
        wrong = np.mean(side > 2 if name.startswith("left") else side < -2)
        assert wrong < 0.01, name


def test_the_registration_moves_the_lobes(atlas: tuple[np.ndarray, nib.Nifti1Image]) -> None:
    labels, grid = atlas
    moved = lobes_on(grid, nib.affines.from_matvec(np.eye(3), [0, 4, 0]))  # two voxels forward
    np.testing.assert_array_equal(moved[:, 2:], labels[:, :-2])


def test_ventricles_posterior_fossa_and_air_are_no_lobe() -> None:
    mask = np.ones((5, 1, 1), bool)
    mask[4] = False
    places = [0, Landmark.CORTEX, Landmark.VENTRICLES, Landmark.INFRATENTORIAL, 0]
    found = lobes_of(np.full((5, 1, 1), 3), np.array(places).reshape(5, 1, 1), mask)
    assert found.ravel().tolist() == [3, 3, 0, 0, 0]


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_every_lesion_voxel_is_in_one_lobe_or_other(seed: int, lesions: int) -> None:
    rng = np.random.default_rng(seed)
    lobes = rng.integers(0, 1 + len(LOBES), (5, 6, 4))
    labels = rng.permuted(np.resize(np.arange(lesions + 1), lobes.size)).reshape(lobes.shape).astype(np.int32)
    names, voxels = lobes_of_lesions(labels, lobes)
    assert len(names) == lesions
    assert sum(voxels.values()) == np.count_nonzero(labels)
    assert voxels[OTHER] == np.count_nonzero((labels > 0) & (lobes == 0))
    for lesion, name in enumerate(names, start=1):
        number = 0 if name == OTHER else 1 + LOBES.index(name)
        counts = np.bincount(lobes[labels == lesion], minlength=1 + len(LOBES))
        assert counts[number] == counts.max()
