"""Backgrounds: 0 and below all else afterwards, whatever it was; scans that are so already stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.core.image.background import LEAST, constant_background, lift_background

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (40, 44, 30)
RNG = np.random.default_rng


def ball() -> NDArray[np.bool_]:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return np.asarray(sum(axis**2 for axis in axes) < 0.6)


BRAIN = ball()


def tissue(seed: int = 0) -> NDArray[np.float32]:
    """Intensities of a head, 200 to 1200."""
    smooth = ndimage.gaussian_filter(RNG(seed).standard_normal(SHAPE), 2)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (200 + 1000 * smooth).astype(np.float32)


def standardised(values: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.asarray((values - values[where].mean()) / values[where].std(), dtype=np.float32)


def noise(low: float, high: float) -> NDArray[np.float32]:
    return RNG(5).uniform(low, high, SHAPE).astype(np.float32)


Z = standardised(tissue(), BRAIN)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
STRIPPED = {
    "z-scores in the brain": np.where(BRAIN, Z, 0),
    "z-scores of all": standardised(np.where(BRAIN, tissue(), 0), EVERYWHERE),
    "NaN around z-scores": np.where(BRAIN, Z, np.nan),
    "infinity around z-scores": np.where(BRAIN, Z, -np.inf),
    "minus one around": np.where(BRAIN, tissue() / 1200, -1),
    "a large constant around": np.where(BRAIN, tissue(), 5000),
    "mid-range around": np.where(BRAIN, tissue(), 700),
    "an offset": np.where(BRAIN, tissue() + 100, 100),
    "an offset below 0": np.where(BRAIN, tissue() - 1024, -1024),
    "MP2RAGE, denoised": np.where(BRAIN, tissue() / 1200 - 0.5, 0),
    "MP2RAGE as integers": np.where(BRAIN, np.rint(tissue() / 1200 * 4095), 2048),
    "a small offset": np.where(BRAIN, tissue(), 1e-4),
}
WITH_NOISE = {
    "PSIR": np.where(BRAIN, tissue() - 600, noise(-30, 30)),
    "MP2RAGE": np.where(BRAIN, tissue() / 1200 - 0.5, noise(-0.5, 0.5)),
    "z-scores of a head": standardised(np.where(BRAIN, tissue(), noise(0, 30)), EVERYWHERE),
}
ORDINARY = {
    "stripped": np.where(BRAIN, tissue(), 0),
    "a head in noise": np.where(BRAIN, tissue(), noise(0, 30)),
    "a head in rounded noise": np.where(BRAIN, tissue(), np.rint(noise(0, 3))),
    "a head in noise of two values": np.where(BRAIN, tissue(), np.rint(noise(0.6, 2.4))),
    "overshoot": np.where(BRAIN, tissue(), noise(-60, 60)),
    "no background": tissue(),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_a_constant_background_becomes_zero_and_the_brain_stands_above_it(name: str) -> None:
    data = STRIPPED[name].astype(np.float32)
    lifted, shift = lift_background(data)
    assert lifted.dtype == np.float32
    assert shift != 0
    brain = lifted != 0  # as `imaging.brain` recognises stripped scans
    assert not (brain & ~BRAIN).any()
    assert (brain != BRAIN).mean() < 1e-3  # at its edge a voxel may have the background's value by chance
    assert lifted[brain].min() > 0
    changed = lifted[brain] != data[brain] + np.float32(shift)
    assert changed.mean() < 0.003  # the lowest 0.1 % may be raised
    assert (lifted[brain][changed] <= lifted[brain].min() * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", WITH_NOISE)
def test_signed_scans_without_a_constant_background_are_shifted_as_a_whole(name: str) -> None:
    data = WITH_NOISE[name].astype(np.float32)
    lifted, shift = lift_background(data)
    low, high = np.percentile(data, (0.1, 99.9))
    assert shift == pytest.approx(LEAST * (high - low) - low)
    assert lifted.min() > 0
    np.testing.assert_allclose(lifted[data > low], data[data > low] + shift, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_scans_stay_as_they_are(name: str) -> None:
    data = ORDINARY[name].astype(np.float32)
    lifted, shift = lift_background(data)
    assert shift == 0
    np.testing.assert_array_equal(lifted, data)


def test_what_is_not_finite_becomes_the_background() -> None:
    data = ORDINARY["stripped"].astype(np.float32)
    data[20, 20, 10:14] = np.nan, np.inf, -np.inf, np.nan
    lifted, shift = lift_background(data)
    assert shift == 0
    np.testing.assert_array_equal(lifted, np.where(np.isfinite(data), data, 0))
    signed = np.where(BRAIN, Z, 0).astype(np.float32)
    signed[20, 20, 10:14] = np.nan, np.inf, -np.inf, np.nan
    lifted, shift = lift_background(signed)
    assert shift > 0
    assert not lifted[20, 20, 10:14].any()


def test_tissue_with_the_backgrounds_value_is_tissue() -> None:
    """Integers of an inversion recovery cross 0 amid the brain."""
    data = np.where(BRAIN, np.rint(tissue() / 100) - 6, 0).astype(np.float32)
    assert (data[ndimage.binary_erosion(BRAIN, iterations=4)] == 0).any()
    lifted, _ = lift_background(data)
    inner = ndimage.binary_erosion(BRAIN, iterations=4)
    enclosed = inner & (data == 0) & ~_touching(data == 0)
    assert enclosed.any()
    assert (lifted[enclosed] > 0).all()


def _touching(mask: NDArray[Any]) -> NDArray[Any]:
    labels, _ = ndimage.label(mask)
    return np.asarray(labels == labels[0, 0, 0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [(np.zeros(SHAPE), 0.0), (np.full(SHAPE, np.nan), np.nan), (noise(0, 1), None), (np.where(BRAIN, 1.0, -3.0), -3.0)],
)  # fmt: skip
def test_the_background_is_what_most_of_the_faces_have(data: NDArray[Any], expected: float | None) -> None:
    found = constant_background(data)
    assert found is None if expected is None else found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("value", [0.0, -2.0, np.nan])
def test_a_scan_of_one_value_does_no_harm(value: float) -> None:
    lifted, shift = lift_background(np.full(SHAPE, value, np.float32))
    assert shift == 0
    assert np.isfinite(lifted).all()
    assert lifted.min() == lifted.max()  # so that reading can refuse it
