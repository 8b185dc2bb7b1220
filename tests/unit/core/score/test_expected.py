"""What FLAIR should be, given T1w and place."""

from __future__ import annotations

import numpy as np
import pytest

from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score import expected as room
from bids_wmh_uad.core.score.expected import rim_weight, tissue_weight
from bids_wmh_uad.errors import BadDataError

SHAPE = (40, 40, 20)
ZOOMS = (2.0, 2.0, 3.0)
PARAMS = DetectionParameters()


def expected_flair(flair, t1w, mask, zooms, **options):
    return room.expected_flair(flair, t1w, mask, zooms, PARAMS, **options)


def tissues(seed=0, lesion_fraction=0.0, shape=SHAPE):
    """White and grey matter whose FLAIR and T1w differ, and lesions in white matter: FLAIR, T1w, mask, lesions."""
    rng = np.random.default_rng(seed)
    grey = rng.random(shape) < 0.45
    flair = np.where(grey, 2.0, 0.0) + 0.5 * rng.standard_normal(shape)
    t1w = np.where(grey, -6.0, 0.0) + rng.standard_normal(shape)
    lesion = ~grey & (rng.random(shape) < lesion_fraction)
    flair[lesion] += 4.0
    mask = np.ones(shape, dtype=bool)
    mask[:3] = False
    return flair.astype(np.float32), t1w.astype(np.float32), mask, lesion & mask


def given_t1w(flair, t1w, mask):
    """Z-score against the tissue of the same T1w."""
    expected = expected_flair(flair, t1w, mask, ZOOMS)
    return (flair - expected.level) / expected.spread


def test_it_is_a_z_score_in_every_tissue():
    flair, t1w, mask, _ = tissues()
    expected = expected_flair(flair, t1w, mask, ZOOMS)
    for volume in (expected.level, expected.spread, expected.local):
        assert volume.dtype == np.float32
    assert not expected.level[~mask].any()
    assert not expected.local[~mask].any()
    z = given_t1w(flair, t1w, mask)
    for tissue in (t1w < -4, t1w > -2):
        values = z[mask & tissue]
        assert abs(np.median(values)) < 0.05
        assert 0.9 < 1.4826 * np.median(np.abs(values)) < 1.1
        assert np.abs(expected.local[mask & tissue]).mean() < 0.05  # nothing departs anywhere


def test_lesions_stand_out_from_tissue_of_their_t1w_and_grey_matter_does_not():
    flair, t1w, mask, lesion = tissues(lesion_fraction=0.05)
    z = given_t1w(flair, t1w, mask)
    assert np.median(z[lesion]) > 5
    assert np.median(z[mask & (t1w < -4)]) < 0.2


def test_what_is_left_out_is_not_learnt_but_gets_its_expectation():
    flair, t1w, mask, lesion = tissues(lesion_fraction=0.3)
    healthy, _, _, _ = tissues()
    truth = expected_flair(healthy, t1w, mask, ZOOMS)
    learnt, blind = (
        expected_flair(flair, t1w, mask, ZOOMS, reference=reference) for reference in (None, ~lesion)
    )
    white = mask & (t1w > -2)
    for name in ("level", "local"):
        error, error_blind = (
            np.abs(getattr(one, name) - getattr(truth, name))[white].mean() for one in (learnt, blind)
        )
        assert error_blind < 0.3 * error
    assert (blind.level[lesion] != 0).any()
    with pytest.raises(BadDataError):
        expected_flair(flair, t1w, mask, ZOOMS, reference=~mask)


def test_cortex_that_is_bright_in_one_place_is_expected_there_and_nowhere_else():
    flair, t1w, mask, _ = tissues(shape=(60, 60, 30))
    limbic = mask & (t1w < -4) & (np.indices(mask.shape)[0] > 45)  # a quarter of the grey matter
    expected = expected_flair(flair + 0.5 * limbic, t1w, mask, ZOOMS)
    other = mask & (t1w < -4) & (np.indices(mask.shape)[0] < 25)
    assert 0.15 < np.median(expected.local[limbic]) <= 0.5
    assert abs(np.median(expected.local[other])) < 0.1
    white = mask & (t1w > -2) & (np.indices(mask.shape)[0] > 45)
    assert abs(np.median(expected.local[white])) < 0.1  # its neighbours in white matter are not


def test_the_local_departure_takes_a_bias_field_away_and_not_a_lesion():
    flair, t1w, mask, _ = tissues(shape=(60, 60, 30))
    field = (np.indices(mask.shape)[0] / 60 - 0.5).astype(np.float32) * mask
    left = flair + field - expected_flair(flair + field, t1w, mask, ZOOMS).local
    white = mask & (t1w > -2)
    assert np.corrcoef(left[white], field[white])[0, 1] < 0.5 * np.corrcoef((flair + field)[white], field[white])[0, 1]  # fmt: skip
    lesion = np.zeros(mask.shape, dtype=bool)
    lesion[30:34, 30:34, 15:18] = True  # 0.6 mL
    departure = expected_flair(flair + 6 * lesion, t1w, mask, ZOOMS).local
    assert departure[lesion].max() < 0.6  # of 6


def test_one_spread_is_the_most_it_departs():
    flair, t1w, mask, _ = tissues()
    half = np.indices(mask.shape)[0] > 20
    expected = expected_flair((flair + 50 * half).astype(np.float32), t1w, mask, ZOOMS)
    assert (np.abs(expected.local[mask]) <= 1.05 * expected.spread[mask].max()).all()


def test_it_follows_units_and_not_the_order_of_voxels():
    flair, t1w, mask, _ = tissues(
        lesion_fraction=0.05, shape=(41, 41, 21)
    )  # both ends lie on the coarse grid
    one = expected_flair(flair, t1w, mask, (1.0, 1.0, 1.0))
    other = expected_flair(3 * flair + 7, 0.5 * t1w - 1, mask, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(other.level[mask], 3 * one.level[mask] + 7, atol=3e-3)
    np.testing.assert_allclose(other.spread[mask], 3 * one.spread[mask], atol=3e-3)
    np.testing.assert_allclose(other.local[mask], 3 * one.local[mask], atol=3e-3)
    turned = expected_flair(*(array[::-1, :, ::-1] for array in (flair, t1w, mask)), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(turned.level[::-1, :, ::-1], one.level, atol=1e-4)
    np.testing.assert_allclose(turned.local[::-1, :, ::-1], one.local, atol=1e-4)


def test_the_neighbourhood_is_in_millimetres():
    flair, t1w, mask, _ = tissues(shape=(60, 60, 12))
    bright = mask & (np.indices(mask.shape)[2] == 6)
    near, far = (
        expected_flair((flair + 1.0 * bright).astype(np.float32), t1w, mask, (2.0, 2.0, thick)).local[bright]
        for thick in (2.0, 2 * PARAMS.local_mm)
    )
    assert np.median(far) > 2 * np.median(near) > 0  # thick slices have the neighbourhood for themselves


def test_constant_or_missing_tissue():
    flair, t1w, mask, _ = tissues()
    constant = expected_flair(flair, np.zeros_like(t1w), mask, ZOOMS)
    assert np.isfinite(constant.local).all()
    assert not (
        (np.ones_like(flair) - expected_flair(np.ones_like(flair), t1w, mask, ZOOMS).level)[mask]
    ).any()
    few = np.zeros_like(mask)
    few[5, 5, :7] = True
    assert np.isfinite(given_t1w(flair, t1w, few)).all()
    with pytest.raises(BadDataError):
        expected_flair(flair, t1w, np.zeros_like(mask), ZOOMS)


def test_the_rim_weighs_half_at_the_brains_edge_in_millimetres():
    mask = np.zeros((60, 60, 12), dtype=bool)
    mask[5:55, 5:55, :] = True
    weight = rim_weight(mask, (1.0, 1.0, 5.0), PARAMS)
    assert weight.dtype == np.float32
    assert weight[5, 30, 6] == pytest.approx(1 - 0.5 * np.exp(-((1 / PARAMS.rim_mm) ** 2)))
    assert weight[30, 30, 6] > 0.98
    assert weight[30, 30, 0] == pytest.approx(
        1 - 0.5 * np.exp(-((5 / PARAMS.rim_mm) ** 2))
    )  # beyond the image is outside
    assert weight.min() >= 0.5


def test_grey_matter_weighs_less_and_is_never_vetoed():
    mask, grey = np.zeros((60, 40, 20), dtype=bool), np.zeros((60, 40, 20), dtype=bool)
    mask[5:55, 5:35] = True
    grey[:30] = True  # outside the mask as well: it must not count
    weight = tissue_weight(grey, mask, (1.0, 1.0, 4.0), PARAMS)
    assert weight.dtype == np.float32
    assert weight[10, 20, 10] == pytest.approx(PARAMS.grey_weight, abs=1e-3)
    assert weight[5, 5, 0] == pytest.approx(PARAMS.grey_weight, abs=1e-3)  # the brain's edge is no exception
    assert weight[50, 20, 10] == pytest.approx(1.0, abs=1e-3)
    assert weight[29, 20, 10] < weight[30, 20, 10]
    assert weight[27, 20, 10] < 0.75 < weight[33, 20, 10]
    assert (weight[~mask] == 1).all()
    np.testing.assert_array_equal(tissue_weight(np.zeros_like(mask), mask, (1, 1, 1), PARAMS), 1)
