"""Candidates: filled ventricles, and what is measured of each, on scenes drawn by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bids_wmh_uad.core.lesion.candidates import (
    CLOSING_MM,
    RIM_MM,
    TOP_VOXELS,
    WALL_FLUID,
    Candidate,
    Surroundings,
    describe_candidates,
    fill_ventricles,
    find_walls,
)
from bids_wmh_uad.core.lesion.landmarks import Landmark, Tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (3.0, 0.8, 1.2), (0.5, 2.0, 1.0)]
SIZE_MM = (60.0, 48.0, 36.0)


def grid(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """World coordinates of a box of `SIZE_MM` around the origin, (3, X, Y, Z)."""
    shape = [round(size / step) + 1 for size, step in zip(SIZE_MM, spacing, strict=True)]
    centred = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    return centred * np.array(spacing).reshape(3, 1, 1, 1)


def ellipsoid(where: NDArray[np.float64], centre: Any, radii: Any) -> NDArray[np.bool_]:
    middle, axes = (np.reshape(np.asarray(value, float), (3, 1, 1, 1)) for value in (centre, radii))
    inside: NDArray[np.bool_] = (((where - middle) / axes) ** 2).sum(axis=0) <= 1
    return inside


def box(where: NDArray[np.float64], low: Any, high: Any) -> NDArray[np.bool_]:
    lowest, highest = (np.reshape(np.asarray(value, float), (3, 1, 1, 1)) for value in (low, high))
    inside: NDArray[np.bool_] = ((where >= lowest) & (where <= highest)).all(axis=0)
    return inside


# ------------------------------------------------------------------ ventricles


@pytest.mark.parametrize("spacing", SPACINGS)
def test_plexus_in_fluid_belongs_to_the_ventricle_whatever_its_size(spacing: tuple[float, ...]) -> None:
    where = grid(spacing)
    ventricle = ellipsoid(where, (0, 0, 0), (20, 16, 14))
    for radius in (4, 8):
        plexus = ellipsoid(where, (3, 2, 0), (radius, radius, radius))
        np.testing.assert_array_equal(fill_ventricles(ventricle & ~plexus, spacing), ventricle)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_plexus_on_a_narrow_stalk_belongs_to_the_ventricle(spacing: tuple[float, ...]) -> None:
    where = grid(spacing)
    ventricle = ellipsoid(where, (0, 0, 0), (20, 16, 14))
    stalk = box(where, (-1, 0, -30), (1, 99, 30))  # a sheet from the middle to the wall, in no plane enclosed
    found = fill_ventricles(ventricle & ~stalk, spacing)
    deep = ellipsoid(where, (0, 0, 0), (14, 11, 9))
    assert (stalk & deep & ventricle).any()
    assert found[stalk & deep].all()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("gap", "filled"), [(3.0, True), (16.0, False)])
def test_a_septum_is_filled_and_what_is_thicker_is_not(
    spacing: tuple[float, ...], gap: float, filled: bool
) -> None:
    where = grid(spacing)
    left = box(where, (-22, -14, -10), (-gap / 2 - 1e-6, 14, 10))
    right = box(where, (gap / 2 + 1e-6, -14, -10), (22, 14, 10))
    between = box(where, (-gap / 2, -10, -6), (gap / 2, 10, 6))
    found = fill_ventricles(left | right, spacing)
    if gap / 2 < spacing[0] and not between.any():
        pytest.fail("no voxel between the two")
    assert found[between].all() if filled else not found[between].any()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_cap_beside_the_wall_stays_out(spacing: tuple[float, ...]) -> None:
    where = grid(spacing)
    ventricle = ellipsoid(where, (0, 0, 0), (20, 10, 12))
    cap = ellipsoid(where, (0, 0, 0), (26, 15, 16)) & ~ventricle
    assert not (fill_ventricles(ventricle, spacing) & cap).any()


def test_tissue_within_an_open_arch_stays_out() -> None:
    """The thalamus, round which the lateral ventricle bends."""
    where = grid((1.0, 1.0, 1.0))
    ring = ellipsoid(where, (0, 0, 0), (4, 18, 16)) & ~ellipsoid(where, (0, 0, 0), (99, 10, 9))
    opening = box(where, (-99, -99, -5), (99, 0, 5))
    thalamus = ellipsoid(where, (0, 0, 0), (4, 9, 8))
    assert not fill_ventricles(ring & ~opening, (1, 1, 1))[thalamus].any()
    assert fill_ventricles(ring, (1, 1, 1))[thalamus & (np.abs(where[0]) < 3)].all()


def test_no_ventricle_is_nothing() -> None:
    empty = np.zeros((5, 4, 3), bool)
    found = fill_ventricles(empty, (1, 1, 1))
    assert found.shape == empty.shape
    assert not found.any()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    spacing=st.sampled_from(SPACINGS),
    margins=st.tuples(*[st.integers(0, 5)] * 6),
)
def test_the_images_edge_and_the_order_of_storage_change_nothing(
    seed: int, spacing: tuple[float, float, float], margins: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    ventricles = rng.random((9, 8, 7)) < rng.uniform(0.02, 0.5)
    before = ventricles.copy()
    found = fill_ventricles(ventricles, spacing)
    np.testing.assert_array_equal(ventricles, before)
    assert found[ventricles].all()
    pad = list(zip(margins[::2], margins[1::2], strict=True))
    np.testing.assert_array_equal(fill_ventricles(np.pad(ventricles, pad), spacing), np.pad(found, pad))
    turned = fill_ventricles(np.ascontiguousarray(ventricles[::-1, :, ::-1]), spacing)
    np.testing.assert_array_equal(turned, found[::-1, :, ::-1])


def test_surroundings_of_a_scan() -> None:
    """White matter at 0, grey matter at -4 on T1w, fluid at -10 on both; a bright spot in the ventricle."""
    shape = (20, 16, 12)
    t1w, flair = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask, grey, landmarks = np.zeros(shape, bool), np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    mask[1:-1, 1:-1] = True
    t1w[1:5], grey[1:5] = -4, 1
    t1w[8:14, 4:12, 2:10] = flair[8:14, 4:12, 2:10] = -10
    landmarks[8:14, 4:12, 2:10] = Landmark.VENTRICLES
    inside = np.zeros(shape, bool)
    inside[8:14, 4:12, 2:10] = True
    landmarks[10:12, 7:9, 5:7], flair[10:12, 7:9, 5:7], t1w[10:12, 7:9, 5:7] = 0, 5, -4  # plexus
    flair[16, 8, 6], t1w[16, 8, 6] = 5, -10  # a lesion, dark on T1w like fluid
    t1w[6, 8, 6] = flair[6, 8, 6] = -10  # fluid elsewhere
    t1w[7, 6, 6] = -4  # a lining
    around = Surroundings.of(Tissue(flair, t1w, mask, grey), landmarks, np.eye(4))
    np.testing.assert_array_equal(around.filled, inside)
    expected = (inside | ~mask).astype(float)
    expected[6, 8, 6] = 1
    expected[7, 6, 6] = WALL_FLUID
    np.testing.assert_array_equal(around.fluid, expected)
    assert around.white[7, 8, 6]  # white matter at the ventricle is no wall
    assert not around.white[2, 8, 6]  # grey
    assert not (around.white & ((around.fluid > 0) | (t1w < -1))).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_between_is_what_has_ventricles_on_its_left_and_right(axis: int) -> None:
    """Two ventricles 8 mm apart across the midline, wherever the image keeps left and right; a third is too far."""
    shape, landmarks = (60, 20, 14), np.zeros((60, 20, 14), np.uint8)
    for start, stop in ((5, 10), (18, 23), (50, 55)):
        landmarks[start:stop, 5:12, 4:9] = Landmark.VENTRICLES
    tissue = np.zeros(shape, np.float32)
    order = np.roll(np.arange(3), axis)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order]
    turned = [np.transpose(part, order) for part in (tissue, tissue - 1, tissue == 0, tissue + 1, landmarks)]
    around = Surroundings.of(Tissue(*turned[:4]), turned[4], affine)
    between = np.transpose(around.between, np.argsort(order)) & (landmarks == 0)
    expected = np.zeros(shape, bool)
    expected[10:18, 5:12, 4:9] = True
    np.testing.assert_array_equal(between, expected)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_walls_are_what_touches_the_ventricles_and_is_not_white(spacing: tuple[float, ...]) -> None:
    where = grid(spacing)
    filled = ellipsoid(where, (0, 0, 0), (12, 10, 10))
    white = ~filled & (where[0] > 0)
    found = find_walls(filled, white)
    touching = ndimage.distance_transform_cdt(~filled, metric="taxicab") == 1
    np.testing.assert_array_equal(found, touching & ~white)
    assert not find_walls(np.zeros_like(filled), white).any()


FINE_MM = 0.5
LEVELS = {"grey": (1.0, -4.0), "fluid": (-10.0, -12.0), "bright": (6.0, -2.0)}
"""FLAIR and T1w of tissues, z; white matter is at 0."""


def scanned(
    parts: dict[str, NDArray[np.bool_]], voxel: tuple[int, ...], order: tuple[int, ...]
) -> tuple[dict[str, Candidate], dict[str, Candidate]]:
    """What is known of the bright parts of a scan, with the ventricles' walls and without.

    The scan's voxels average so many fine ones, which are blurred; its axes come in any order.

    Parts are drawn into white matter, the later over the earlier ones; the last word of their names is a tissue of `LEVELS`.
    """
    fine = np.zeros((2, *next(iter(parts.values())).shape), np.float32)
    drawn = np.zeros(fine.shape[1:], np.int32)
    for number, (name, part) in enumerate(parts.items(), start=1):
        fine[:, part] = np.reshape(LEVELS[name.split()[-1]], (2, 1))
        drawn[part] = number
    fine = ndimage.gaussian_filter(fine, (0, *(0.6 / FINE_MM,) * 3))

    def coarse(volume: NDArray[Any]) -> NDArray[Any]:
        split = [k for n, size in zip(volume.shape, voxel, strict=True) for k in (n // size, size)]
        return np.transpose(volume.reshape(split).mean(axis=(1, 3, 5)), order)

    flair, t1w = (coarse(volume) for volume in fine)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.array(voxel) * FINE_MM)[:, order]
    ventricles = (flair < -5) & (t1w < -8)
    grey = (np.abs(t1w + 4) < 0.1).astype(np.float32)
    tissue = Tissue(flair, t1w, np.ones(flair.shape, bool), grey)
    around = Surroundings.of(tissue, ventricles.astype(np.uint8) * Landmark.VENTRICLES, affine)
    bright = [(name, number) for number, name in enumerate(parts, start=1) if name.endswith("bright")]
    labels = np.zeros(flair.shape, np.int32)
    for label, (_, number) in enumerate(bright, start=1):
        labels[(coarse(drawn == number) > 0.1) & (flair > 3) & ~around.filled] = label
    spacing = [voxel[axis] * FINE_MM for axis in order]
    without = replace(around, fluid=around.filled.astype(np.float32))
    walled, bare = (
        describe_candidates(labels, np.maximum(flair, 0), 1.0, surroundings, spacing)
        for surroundings in (around, without)
    )
    names = [name.split()[0] for name, _ in bright]
    return dict(zip(names, walled, strict=True)), dict(zip(names, bare, strict=True))


@pytest.mark.parametrize("voxel", [(2, 2, 2), (2, 2, 6), (2, 1, 2), (2, 2, 8)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("radius", [2.0, 2.5, 5.0])
def test_walls_count_for_a_lining_more_than_for_a_cap(
    voxel: tuple[int, ...], order: tuple[int, ...], radius: float
) -> None:
    """A horn with a lining of 2 mm, another with a cap of 8 mm, and a lesion away from both."""
    x, y, z = np.indices((160, 96, 48)) * FINE_MM
    inside = (z > 3) & (z < 20)
    found, bare = scanned(
        {
            "lining bright": (np.hypot(x - 16.2, y - 20.2) < radius + 2) & inside,
            "cap bright": (np.hypot(x - 44.2, y - 15.7 - radius) < 4.0) & inside,
            "lesion bright": (np.hypot(x - 66.2, y - 30.2) < 4.0) & inside,
            "cortex grey": y > 44,
            "horn fluid": (np.hypot(x - 16.2, y - 20.2) < radius) & inside,
            "other fluid": (np.hypot(x - 44.2, y - 12.2) < radius) & inside,
        },
        voxel,
        order,
    )
    gained = {name: found[name].fluid - bare[name].fluid for name in found}
    assert gained["lesion"] == found["lesion"].fluid == 0
    assert 0 <= gained["cap"] < gained["lining"]
    assert found["cap"].fluid < min(0.25, found["lining"].fluid)


# ------------------------------------------------------------------- candidates


def scene(
    shape: tuple[int, ...] = (21, 19, 17),
) -> tuple[NDArray[np.int32], NDArray[np.float32], Surroundings]:
    """No candidate; fluid where x is small, white matter where it is large, neither in the middle plane."""
    x = np.indices(shape)[0]
    none = np.zeros(shape, bool)
    around = Surroundings(none, x < shape[0] // 2, x > shape[0] // 2, none, x.astype(np.float32))
    return np.zeros(shape, np.int32), np.ones(shape, np.float32), around


@pytest.mark.parametrize(
    ("spacing", "voxels", "left"),
    [((1.0, 1.0, 1.0), 32, 10), ((1.0, 1.0, 3.0), 12, 4), ((2.5, 1.0, 1.0), 12, 0), ((2.0, 2.0, 2.0), 6, 1)],
)
def test_shares_of_the_rim_counted_by_hand(
    spacing: tuple[float, float, float], voxels: int, left: int
) -> None:
    """Around one voxel in the middle plane lie so many within 2 mm, so many of them on either side."""
    labels, anomaly, around = scene()
    labels[10, 9, 8] = 1
    (found,) = describe_candidates(labels, anomaly, 1.0, around, spacing)
    assert RIM_MM == 2.0
    assert found.fluid == found.white == pytest.approx(left / voxels)
    assert found.volume_mm3 == pytest.approx(np.prod(spacing))


def test_the_rim_is_the_same_at_the_images_edge_but_for_what_is_outside() -> None:
    labels, anomaly, around = scene()
    labels[10, 0, 8] = 1
    (found,) = describe_candidates(labels, anomaly, 1.0, around, (1, 1, 1))
    # of 32 voxels within 2 mm those with y < 0 are missing: 10 in all, 3 of the 10 with x < 0
    assert found.fluid == pytest.approx((10 - 3) / (32 - 10))
    whole = np.ones(labels.shape, np.int32)
    (found,) = describe_candidates(whole, anomaly, 1.0, around, (1, 1, 1))
    assert found.fluid == found.white == 0


@pytest.mark.parametrize(
    ("box", "spacing", "thickness"),
    [
        (np.s_[3:18, 3:16, 8], (1, 1, 1), 2.0),  # a sheet of one voxel, however wide
        (np.s_[3:18, 3:16, 8], (1, 1, 3), 6.0),
        (np.s_[3:18, 3:16, 7:10], (1, 1, 1), 4.0),
        (np.s_[3:18, 9, 4:12], (1, 0.5, 3), 1.0),
        (np.s_[10, 9, 8], (1, 1, 1), 2.0),
        (np.s_[0:5, 0:5, 0:5], (1, 1, 1), 6.0),  # in the image's corner
    ],
)
def test_thickness_of_sheets_and_blocks(box: Any, spacing: tuple[float, ...], thickness: float) -> None:
    labels, anomaly, around = scene()
    labels[box] = 1
    (found,) = describe_candidates(labels, anomaly, 1.0, around, spacing)
    assert found.thickness_mm == pytest.approx(thickness)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.0, 1.5)])
@pytest.mark.parametrize("radius", [3.0, 6.0])
def test_a_ball_is_as_thick_as_its_diameter(spacing: tuple[float, ...], radius: float) -> None:
    where = grid(spacing)
    labels = ellipsoid(where, (0, 0, 0), (radius,) * 3).astype(np.int32)
    none = np.zeros(labels.shape, bool)
    around = Surroundings(none, none, none, none, none.astype(np.float32))
    (found,) = describe_candidates(labels, np.ones(labels.shape, np.float32), 1.0, around, spacing)
    assert found.thickness_mm == pytest.approx(2 * radius, abs=2 * max(spacing))
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.2)


def test_peak_is_in_thresholds_and_endless_at_none() -> None:
    labels, anomaly, around = scene()
    labels[4:7, 4, 4] = 1
    anomaly[5, 4, 4], anomaly[5, 5, 4] = 6, 99  # the other is outside
    assert describe_candidates(labels, anomaly, 1.5, around, (1, 1, 1))[0].peak == pytest.approx(4)
    assert describe_candidates(labels, anomaly, 0.0, around, (1, 1, 1))[0].peak == np.inf


def test_contrast_is_against_the_brain_around_by_hand() -> None:
    """In a ramp a rim is as bright as what it is around; only brain counts, and white matter's 0 where none is around."""
    labels, anomaly, around = scene()
    labels[10, 9, 8] = 1
    flair = around.flair.copy()

    def contrast() -> float:
        (found,) = describe_candidates(labels, anomaly, 1.0, replace(around, flair=flair), (1, 1, 1))
        return found.contrast

    assert contrast() == pytest.approx(0)
    flair[10, 9, 8] += 3
    assert contrast() == pytest.approx(3)
    flair[11:] = np.nan  # of the 32 voxels around 1 lies at x = 8, 9 at 9, 12 at 10
    assert contrast() == pytest.approx(13 - (1 * 8 + 9 * 9 + 12 * 10) / 22)
    flair[labels == 0] = np.nan
    assert contrast() == pytest.approx(13)


def test_evidence_is_the_mean_at_the_brightest_eight() -> None:
    labels, _, around = scene()
    rng = np.random.default_rng(0)
    anomaly, evidence = (rng.normal(size=labels.shape).astype(np.float32) for _ in range(2))
    labels[3:7, 3:6, 5] = 1
    labels[12:14, 3, 5:7] = 2
    many, few = describe_candidates(labels, anomaly, 1.0, around, (1, 1, 1), evidence)
    assert TOP_VOXELS == 8
    order = np.argsort(-anomaly[labels == 1])
    assert many.latent == pytest.approx(evidence[labels == 1][order[:8]].mean())
    assert few.latent == pytest.approx(evidence[labels == 2].mean())
    assert [found.latent for found in describe_candidates(labels, anomaly, 1.0, around, (1, 1, 1))] == [0, 0]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), spacing=st.sampled_from(SPACINGS))
def test_candidates_come_in_the_order_of_their_labels(seed: int, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    labels, count = ndimage.label(rng.random((12, 11, 10)) < 0.05)
    labels = labels.astype(np.int32)
    anomaly, evidence = (rng.random(labels.shape).astype(np.float32) for _ in range(2))
    fluid, white = rng.random((2, *labels.shape)) < 0.4
    around = Surroundings(np.zeros_like(fluid), fluid, white, white, anomaly)
    found = describe_candidates(labels, anomaly, 0.5, around, spacing, evidence)
    assert len(found) == count
    turned = np.where(labels > 0, count + 1 - labels, 0).astype(np.int32)
    assert describe_candidates(turned, anomaly, 0.5, around, spacing, evidence) == found[::-1]
    for candidate in found:
        assert 0 <= candidate.white <= 1
        assert 0 <= candidate.fluid <= 1
        assert candidate.thickness_mm >= 2 * min(spacing) * (1 - 1e-9)
    assert sum(candidate.volume_mm3 for candidate in found) == pytest.approx(
        (labels > 0).sum() * np.prod(spacing)
    )


def test_closing_spans_what_lies_in_ventricles_and_no_more() -> None:
    assert 2 * CLOSING_MM == 6.0  # the widest septum with its fornix; tissue beyond is somebody's thalamus
