"""Mask measures against the WMH challenge's recipe on SimpleITK images, MedPy and cc3d; their properties."""

from __future__ import annotations

import math

import cc3d
import numpy as np
import pytest
import scipy.spatial
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from medpy.metric import binary as medpy

from bids_wmh_uad.core.evaluation.overlap import (
    SIZE_EDGES_ML,
    avd_percent,
    boundary_distances,
    dice,
    h95_mm,
    in_plane_boundary,
    lesion_detection,
    lesion_f1,
    lesion_precision,
    lesion_recall,
    lesion_recall_by_size,
)

ZOOMS = (0.9, 1.1, 3.0)
masks = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(lambda shape: hnp.arrays(bool, shape))
pairs = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


def blobs(seed, shape=(30, 26, 12), share=0.1):
    """Smooth random mask, cut by the image's border."""
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (2, 2, 1))
    return noise > np.quantile(noise, 1 - share)


def image(mask, direction=(0, -1, 0, 1, 0, 0, 0, 0, 1)):
    """SimpleITK image of a mask: rotated and away from the origin."""
    made = sitk.GetImageFromArray(mask.astype(np.uint8).transpose(2, 1, 0))
    made.SetSpacing(ZOOMS)
    made.SetOrigin((-20.0, 35.5, 7.25))
    made.SetDirection(direction)
    return made


def challenge_boundary(mask):
    made = image(mask)
    return (
        sitk.GetArrayFromImage(sitk.Subtract(made, sitk.BinaryErode(made, (1, 1, 0)))).transpose(2, 1, 0) > 0
    )


def challenge_h95(result, reference):
    """The challenge's steps: world coordinates of the boundaries, KD-trees, the larger percentile."""
    grid = image(reference)
    worlds = [
        [grid.TransformIndexToPhysicalPoint(at.tolist()) for at in np.argwhere(challenge_boundary(mask))]
        for mask in (result, reference)
    ]
    if not all(worlds):
        return math.nan
    trees = [scipy.spatial.KDTree(world, leafsize=100) for world in worlds]
    return max(np.percentile(trees[i].query(worlds[1 - i])[0], 95) for i in (0, 1))


def challenge_detection(result, reference):
    """Recall and F1 from the labels of SimpleITK's components."""

    def share(mask, other):
        labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(image(mask), True)).transpose(2, 1, 0)
        names = set(labels[mask].tolist())
        return len(set(labels[mask & other].tolist())) / len(names) if names else 1.0

    recall, precision = share(reference, result), share(result, reference)
    return recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def same(a, b):
    return a == pytest.approx(b, rel=1e-9, abs=1e-12, nan_ok=True)


# Dice and volume


@given(pairs)
def test_dice_is_symmetric_and_bounded(pair):
    a, b = pair
    if a.any() or b.any():
        assert 0 <= dice(a, b) == dice(b, a) <= 1
    else:
        assert math.isnan(dice(a, b))


@given(pairs)
def test_dice_is_medpys(pair):
    a, b = pair
    if a.any() or b.any():
        assert same(dice(a, b), medpy.dc(a, b))


def test_dice_of_known_masks():
    a = np.zeros((4, 4, 4), dtype=np.uint8)
    b = a.copy()
    a[:2], b[1:3] = 1, 1
    assert dice(a, a) == 1.0
    assert dice(a, b) == 0.5


def test_avd_of_known_masks():
    a, b, none = np.ones((2, 5, 1)), np.zeros((2, 5, 1)), np.zeros((2, 5, 1))
    b[0, :4] = 1
    assert avd_percent(a, b) == 150.0
    assert avd_percent(b, a) == 60.0
    assert avd_percent(none, b) == 100.0
    assert math.isnan(avd_percent(a, none))


@given(pairs)
def test_avd_is_medpys_relative_volume_difference(pair):
    result, reference = pair
    if reference.any() and result.any():
        assert same(avd_percent(result, reference), 100 * abs(medpy.ravd(result, reference)))


# Boundary distance


@given(masks)
def test_boundary_is_the_challenges(mask):
    np.testing.assert_array_equal(in_plane_boundary(mask), challenge_boundary(mask))


@given(pairs)
def test_h95_is_the_challenges(pair):
    assert same(h95_mm(*pair, ZOOMS), challenge_h95(*pair))


@pytest.mark.parametrize("seed", range(5))
def test_blobs_measure_as_in_the_challenge(seed):
    result, reference = blobs(seed, share=0.08), blobs(seed + 100)
    np.testing.assert_array_equal(in_plane_boundary(result), challenge_boundary(result))
    assert same(h95_mm(result, reference, ZOOMS), challenge_h95(result, reference))
    found = lesion_detection(result, reference)
    assert same((found.recall, found.f1), challenge_detection(result, reference))


@pytest.mark.parametrize("seed", range(5))
def test_distances_in_a_slice_are_medpys(seed):
    """MedPy's 2-D boundary with diagonal neighbours is ours, except that the image's border erodes it."""
    result, reference = (np.pad(blobs(s, (40, 30, 1)), ((1, 1), (1, 1), (0, 0))) for s in (seed, seed + 50))
    ours = boundary_distances(result, reference, ZOOMS)
    flat = (result[..., 0], reference[..., 0])
    assert same(ours[0].mean(), medpy.asd(*flat, ZOOMS[:2], connectivity=2))
    assert same(ours[1].mean(), medpy.asd(*flat[::-1], ZOOMS[:2], connectivity=2))
    assert same(max(d.max() for d in ours), medpy.hd(*flat, ZOOMS[:2], connectivity=2))
    assert same(np.percentile(np.concatenate(ours), 95), medpy.hd95(*flat, ZOOMS[:2], connectivity=2))


def test_medpys_h95_takes_one_percentile_of_both_directions():
    """A small finding far away: ours is its distance, MedPy's drowns it in the other direction's."""
    reference = np.zeros((60, 60, 1), dtype=bool)
    reference[5:25, 5:25] = True
    result = np.zeros_like(reference)
    result[50, 50] = result[15, 15] = True
    ours = h95_mm(result, reference, (1, 1, 1))
    near = 10 - 1  # from the centre of the square to its edge
    far = math.hypot(50 - 24, 50 - 24)
    assert ours == pytest.approx(near + 0.95 * (far - near))
    assert medpy.hd95(result[..., 0], reference[..., 0], connectivity=2) < 0.5 * ours


def test_h95_in_a_slice_is_medpys_for_one_voxel_each():
    a, b = np.zeros((9, 9, 1), dtype=bool), np.zeros((9, 9, 1), dtype=bool)
    a[2, 3], b[5, 7] = True, True
    assert same(h95_mm(a, b, (1, 2, 5)), math.hypot(3, 8))
    assert same(h95_mm(a, b, (1, 2, 5)), medpy.hd95(a[..., 0], b[..., 0], (1, 2)))


@given(pairs)
def test_h95_is_symmetric_and_follows_flips_and_zooms(pair):
    a, b = pair
    value = h95_mm(a, b, ZOOMS)
    assert same(h95_mm(b, a, ZOOMS), value)
    for axis in range(3):
        assert same(h95_mm(np.flip(a, axis), np.flip(b, axis), ZOOMS), value)
    assert same(h95_mm(a.swapaxes(0, 1), b.swapaxes(0, 1), (ZOOMS[1], ZOOMS[0], ZOOMS[2])), value)
    assert same(h95_mm(a, b, 2.5 * np.array(ZOOMS)), 2.5 * value)
    assert same(h95_mm(np.asfortranarray(a), np.asfortranarray(b).astype(np.float32), ZOOMS), value)


@pytest.mark.parametrize("axis", range(3))
def test_h95_scales_with_the_zoom_of_its_axis(axis):
    a = np.zeros((9, 9, 9), dtype=bool)
    b = a.copy()
    a[4, 4, 4] = b[tuple(4 + 3 * (i == axis) for i in range(3))] = True
    assert h95_mm(a, b, ZOOMS) == pytest.approx(3 * ZOOMS[axis])
    assert h95_mm(a, a, ZOOMS) == 0.0


def test_h95_without_a_boundary_is_undefined():
    none, one, full = np.zeros((3, 3, 2)), np.zeros((3, 3, 2)), np.ones((3, 3, 2))
    one[1, 1, 0] = 1
    for pair in ((none, one), (one, none), (none, none), (full, one)):
        assert math.isnan(h95_mm(*pair, ZOOMS))


# Lesions


@given(pairs)
def test_detection_is_the_challenges(pair):
    found = lesion_detection(*pair)
    assert same((found.recall, found.f1), challenge_detection(*pair))
    assert same(found.precision, lesion_recall(*pair[::-1]))
    assert all(0 <= value <= 1 for value in (found.recall, found.precision, found.f1))
    assert found.recall == lesion_recall(*pair)
    assert found.precision == lesion_precision(*pair)
    assert found.f1 == lesion_f1(*pair)


def cc3d_labels(mask):
    """26-connected components; with a margin, for cc3d 4.1 sometimes fails on images of a few voxels."""
    padded = cc3d.connected_components(np.pad(mask, 3), connectivity=26)
    return padded[3:-3, 3:-3, 3:-3]


@given(pairs, st.floats(0.001, 2))
def test_recall_by_size_is_that_of_cc3d(pair, volume):
    result, reference = pair
    labels = cc3d_labels(reference)
    found, total = lesion_recall_by_size(result, reference, volume, (1.5, 3.7, 20.1))
    for band, (low, high) in enumerate(((1.5, 3.7), (3.7, 20.1))):
        chosen = [n for n in range(1, labels.max() + 1) if low <= (labels == n).sum() * volume < high]
        assert total[band] == len(chosen)
        assert found[band] == sum(bool(result[labels == n].any()) for n in chosen)


@given(pairs, masks)
def test_recall_does_not_fall_as_the_result_grows(pair, extra):
    result, reference = pair
    grown = result.copy()
    grown[tuple(slice(n) for n in extra.shape)] |= extra[tuple(slice(n) for n in result.shape)]
    assert lesion_recall(grown, reference) >= lesion_recall(result, reference)
    few, total = lesion_recall_by_size(result, reference, 0.001)
    more, same_total = lesion_recall_by_size(grown, reference, 0.001)
    assert (more >= few).all()
    assert (same_total == total).all()


@given(pairs)
def test_detection_follows_flips_and_storage(pair):
    expected = lesion_detection(*pair)
    for axis in range(3):
        assert lesion_detection(*(np.flip(mask, axis) for mask in pair)) == expected
    assert lesion_detection(*(np.asfortranarray(mask).astype(np.uint8) for mask in pair)) == expected


def test_diagonal_voxels_are_one_lesion():
    reference, result = np.zeros((4, 4, 4), dtype=bool), np.zeros((4, 4, 4), dtype=bool)
    reference[0, 0, 0] = reference[1, 1, 1] = reference[3, 3, 3] = True
    result[1, 1, 1] = result[0, 3, 0] = result[3, 0, 0] = True
    found = lesion_detection(result, reference)
    assert (found.recall, found.precision) == (1 / 2, 1 / 3)
    assert found.f1 == pytest.approx(0.4)


def test_detection_without_lesions():
    none, one, other = (np.zeros((3, 3, 3), dtype=bool) for _ in range(3))
    one[0, 0, 0] = other[2, 2, 2] = True
    values = {
        name: (found.recall, found.precision, found.f1)
        for name, found in {
            "both empty": lesion_detection(none, none),
            "no lesion": lesion_detection(one, none),
            "nothing found": lesion_detection(none, one),
            "missed": lesion_detection(one, other),
        }.items()
    }
    assert values == {
        "both empty": (1, 1, 1),
        "no lesion": (1, 0, 0),
        "nothing found": (0, 1, 0),
        "missed": (0, 0, 0),
    }


def test_size_bands_hold_their_lower_edge():
    reference = np.zeros((60, 3, 3), dtype=bool)
    reference[:10, 0, 0] = True  # 10 voxels
    reference[12:21, 0, 0] = True  # 9 voxels
    reference[:50, 2, 2] = True  # 50 voxels
    result = reference.copy()
    result[11:] = False
    for volume in (0.001, np.nextafter(0.001, 0)):  # a microlitre, and one rounded by a determinant
        found, total = lesion_recall_by_size(result, reference, volume)
        assert total.tolist() == [1, 1, 1, 0, 0, 0]
        assert found.tolist() == [0, 1, 1, 0, 0, 0]
    assert len(SIZE_EDGES_ML) == len(total) + 1
    assert total.dtype.kind == found.dtype.kind == "i"
    empty = lesion_recall_by_size(reference, np.zeros_like(reference), 0.001)
    assert [counts.tolist() for counts in empty] == [[0] * 6] * 2
