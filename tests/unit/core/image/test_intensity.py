"""Robust normalisation: invariances, outliers, and what cannot be normalised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_wmh_uad.core.image.intensity import Scaling, fit_scaling, smooth_inside
from bids_wmh_uad.core.image.robust import half_sample_mode
from bids_wmh_uad.errors import EMPTY_IMAGE, TOO_FEW_VOXELS, BadDataError, BadImageError

SHAPE = (20, 20, 20)
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def tissue(seed=0):
    return np.random.default_rng(seed).normal(100.0, 10.0, SHAPE)


@settings(max_examples=25)
@given(st.floats(0.01, 1e4), st.floats(-1e4, 1e4))
def test_gain_and_offset_do_not_matter(gain, offset):
    image = tissue()
    scaled = gain * image + offset
    scaling = fit_scaling(scaled, EVERYWHERE)
    np.testing.assert_allclose(scaling.apply(scaled), fit_scaling(image, EVERYWHERE).apply(image), atol=1e-3)
    assert scaling.mode == pytest.approx(gain * 100 + offset, abs=5 * gain)


def test_normal_tissue_gets_unit_scale():
    scaling = fit_scaling(tissue(), EVERYWHERE)
    z = scaling.apply(tissue())
    assert scaling.scale == pytest.approx(10.0, rel=0.08)
    assert z.dtype == np.float32
    assert abs(np.median(z)) < 0.3


def test_a_fifth_of_lesions_moves_neither_location_nor_scale_much():
    image = tissue()
    clean = fit_scaling(image, EVERYWHERE)
    image[:4] += 80.0
    dirty = fit_scaling(image, EVERYWHERE)
    assert abs(dirty.mode - clean.mode) < 5.0
    assert dirty.scale < 1.6 * clean.scale


def test_the_reference_decides_and_the_whole_field_of_view_is_scaled():
    image = tissue()
    image[10:] += 500.0
    reference = EVERYWHERE.copy()
    reference[10:] = False
    scaling = fit_scaling(image, reference)
    assert scaling.mode == pytest.approx(100, abs=5)
    assert scaling.apply(image)[10:].min() > 30
    data = image.astype(np.float32)
    expected = ((data - scaling.mode) / scaling.scale).astype(np.float32)
    np.testing.assert_array_equal(Scaling(scaling.mode, scaling.scale).apply(data), expected)


def test_not_finite_values_are_ignored():
    image = tissue()
    expected = fit_scaling(image[:, 1:], EVERYWHERE[:, 1:])
    image[:, 0] = np.nan
    image[0, 0, 0] = np.inf
    assert fit_scaling(image, EVERYWHERE) == expected


def test_few_voxels_and_constant_images_are_typed_errors():
    few = np.zeros(SHAPE, dtype=bool)
    few[0, :10] = True
    with pytest.raises(BadDataError) as caught:
        fit_scaling(tissue(), few, name="FLAIR")
    assert str(caught.value) == TOO_FEW_VOXELS.format(what="FLAIR", n=200, needed=1000)
    with pytest.raises(BadImageError) as empty:
        fit_scaling(np.full(SHAPE, 7), EVERYWHERE, name="FLAIR")
    assert str(empty.value) == EMPTY_IMAGE.format(path="FLAIR", value=7.0)


def test_mode_of_a_skewed_mixture_is_the_dense_peak():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(50, 2, 6000), rng.uniform(60, 200, 5000)])
    assert half_sample_mode(values) == pytest.approx(50, abs=1.5)
    assert abs(np.median(values) - 50) > 1.5


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60))
def test_mode_lies_inside_the_sample_and_ignores_order(values):
    mode = half_sample_mode(np.array(values))
    assert min(values) <= mode <= max(values)
    assert mode == half_sample_mode(np.array(values[::-1]))


def test_smoothing_keeps_constants_to_the_edge_and_zero_outside():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[5:15, 5:15, 5:15] = True
    smoothed = smooth_inside(np.where(mask, 2.5, 99.0).astype(np.float32), mask, (1.0, 1.0, 1.0), 0.7)
    np.testing.assert_allclose(smoothed[mask], 2.5, rtol=1e-5)
    assert (smoothed[~mask] == 0).all()


def test_thick_slices_are_not_mixed():
    spike, mask = np.zeros(SHAPE, dtype=np.float32), np.ones(SHAPE, dtype=bool)
    spike[10, 10, 10] = 1.0
    thin, thick = (smooth_inside(spike, mask, (1.0, 1.0, zoom), 0.7) for zoom in (1.0, 5.0))
    assert thin[10, 10, 11] == pytest.approx(thin[10, 11, 10], rel=1e-5)
    assert thick[10, 10, 11] < 1e-3 * thick[10, 11, 10]
