"""The estimate of the Fazekas grades: each length at its limit, whatever the storage order."""

from __future__ import annotations

import numpy as np
import pytest

from bids_wmh_uad.core.lesion.fazekas import fazekas_estimate
from bids_wmh_uad.core.lesion.landmarks import Landmark

SHAPE = (60, 30, 8)
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
PV, DEEP = "fazekas_periventricular_estimate", "fazekas_deep_estimate"
Box = tuple[slice, slice, slice]


def landmarks() -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[0:5] = Landmark.VENTRICLES  # its last voxel is at x = 4
    drawn[:, :, 0] = Landmark.INFRATENTORIAL
    return drawn


def grades(*lesions: tuple[Box, str]) -> tuple[int | None, int | None]:
    labels = np.zeros(SHAPE, np.int32)
    for number, (box, _) in enumerate(lesions, start=1):
        labels[box] = number
    found = fazekas_estimate(labels, [region for _, region in lesions], landmarks(), AFFINE)
    return found[PV], found[DEEP]


@pytest.mark.parametrize(
    ("end", "grade"),
    [
        (6, 1),
        (10, 1),
        (11, 2),
        (14, 2),
        (15, 3),
        (40, 3),
    ],  # the farthest voxel is at end - 1, end - 5 mm away
)
def test_how_far_it_reaches_from_the_ventricle(end: int, grade: int) -> None:
    assert grades((np.s_[5:end, 8:10, 3:4], "periventricular"))[0] == grade


@pytest.mark.parametrize(("width", "grade"), [(1, 1), (6, 1), (8, 2), (14, 2), (15, 3), (25, 3)])
def test_the_largest_diameter_of_deep_lesions(width: int, grade: int) -> None:
    """A square of so many millimetres: its diagonal, from corner to corner."""
    box = np.s_[25 : 25 + width, 2 : 2 + width, 2:7]  # its height does not count
    assert grades((box, "deep")) == (0, grade)
    assert grades((box, "juxtacortical")) == (0, grade)


def test_small_lesions_do_not_add_up_and_the_posterior_fossa_does_not_count() -> None:
    near = [(np.s_[20 + 8 * n : 25 + 8 * n, 8:13, 3:4], "deep") for n in range(4)]
    assert grades(*near) == (0, 1)
    assert grades((np.s_[20:50, 5:25, 0:1], "infratentorial")) == (0, 0)
    assert grades() == (0, 0)


def test_what_a_periventricular_lesion_has_beyond_10_mm_is_deep_too() -> None:
    assert grades((np.s_[5:14, 8:10, 3:4], "periventricular")) == (2, 0)
    assert grades((np.s_[5:55, 8:10, 3:4], "periventricular")) == (3, 3)


def test_without_ventricles_there_is_no_periventricular_grade() -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels[20:24, 8:12, 3] = 1
    assert fazekas_estimate(labels, ["deep"], np.zeros(SHAPE, np.uint8), AFFINE) == {PV: None, DEEP: 1}


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1), (0, 2, 1)])
def test_the_order_of_storage_does_not_matter(order: tuple[int, int, int]) -> None:
    labels = np.zeros(SHAPE, np.int32)
    labels[20:28, 8:10, 1:8] = 1  # 24 mm high, and 8.2 mm in a slice
    turned = AFFINE[:, [*order, 3]]
    found = fazekas_estimate(labels.transpose(order), ["deep"], landmarks().transpose(order), turned)
    assert found == {PV: 0, DEEP: 1}
