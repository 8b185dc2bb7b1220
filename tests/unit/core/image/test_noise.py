"""Noise is recovered, whatever anatomy it lies on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bids_wmh_uad.core.image.noise import noise_sd

SHAPE = (24, 24, 20)
EVERYWHERE = np.ones(SHAPE, dtype=bool)
SCORE = {"order": 2, "axes": (0, 1)}
CHECKS = {"order": 1, "axes": (0,)}


def noise(sd: float = 1.0) -> np.ndarray:
    return (sd * np.random.default_rng(0).standard_normal(SHAPE)).astype(np.float32)


@pytest.mark.parametrize("sd", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("operator", [SCORE, CHECKS, {"order": 3, "axes": (2,)}])
def test_white_noise_is_recovered(operator: dict, sd: float) -> None:
    assert noise_sd(noise(sd), EVERYWHERE, **operator) == pytest.approx(sd, rel=0.03)


def test_second_differences_are_blind_to_a_ramp_and_first_ones_are_not() -> None:
    ramp = (5 * np.indices(SHAPE)[0] + 3 * np.indices(SHAPE)[1]).astype(np.float32)
    assert noise_sd(ramp, EVERYWHERE, **SCORE) == 0
    assert noise_sd(ramp + noise(), EVERYWHERE, **SCORE) == pytest.approx(1, rel=0.03)
    assert noise_sd(ramp + noise(), EVERYWHERE, **CHECKS) > 3


@pytest.mark.parametrize("sd", [0.1, 1.0])
def test_tissue_edges_and_what_lies_outside_the_mask_do_not_count(sd: float) -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:18, 2:18, 2:18] = True
    tissue = np.where(np.indices(SHAPE)[0] > 9, 8.0, 0.0) + np.where(mask, 0.0, 50.0)
    for operator in (SCORE, CHECKS):
        found = noise_sd((tissue + noise(sd)).astype(np.float32), mask, **operator)
        assert found == pytest.approx(sd, rel=0.15)


def test_a_difference_counts_where_its_whole_stencil_lies_in_the_mask() -> None:
    image, mask = noise(), np.zeros(SHAPE, dtype=bool)
    mask[3:5, 7, 7] = True  # one pair of neighbours
    pair = abs(float(image[4, 7, 7] - image[3, 7, 7]))
    assert noise_sd(image, mask, **CHECKS) == pytest.approx(1.4826 * pair / math.sqrt(2), rel=1e-4)
    assert math.isnan(noise_sd(image, mask, **SCORE))
    assert math.isnan(noise_sd(image, mask & False, **CHECKS))
