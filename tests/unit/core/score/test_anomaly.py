"""Anomaly maps of a small synthetic brain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import median_abs_deviation

from bids_wmh_uad.core.evaluation.threshold_free import average_precision
from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.image.volume import bounding_box
from bids_wmh_uad.core.lesion.threshold import tail_point
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.anomaly import anomaly_map
from bids_wmh_uad.core.score.brightness import brightness_maps, smoothing_mm
from bids_wmh_uad.core.score.expected import expected_flair, rim_weight
from bids_wmh_uad.core.score.latent import latent_excess
from bids_wmh_uad.core.score.sampling import draw_sample
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.core.svm.paradigms import fit_patient
from bids_wmh_uad.core.svm.voxelwise_fit import fit_voxelwise
from bids_wmh_uad.errors import BadDataError, GridMismatchError

SHAPE = (44, 44, 6)
PARAMS = DetectionParameters(n_samples=400, n_models=2)


def scene(lesions=True, seed=0):
    """A ball of textured tissue with bright spots."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE)
    mask = (x - 22) ** 2 + (y - 22) ** 2 < 20**2
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    flair = (texture / texture.std()).astype(np.float32)
    spots = np.zeros(SHAPE, dtype=bool)
    if lesions:
        spots = ((x - 15) ** 2 + (y - 20) ** 2 + (z - 3) ** 2 < 9) | (
            (x - 28) ** 2 + (y - 26) ** 2 + (z - 2) ** 2 < 5
        )
        flair = flair + 6.0 * spots
    t1w = (-0.5 * flair + 0.3 * rng.normal(size=SHAPE)).astype(np.float32)
    return flair * mask, t1w * mask, mask, spots


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return build_autoencoder(0).eval()


def score(model, params=PARAMS, seed=0, **options):
    flair, t1w, mask, _ = scene()
    return score_scan(model, Scan(flair, t1w, mask, **options), params, seed)


def score_scan(model, scan, params=PARAMS, seed=0, **options):
    return anomaly_map(model, scan, params, np.random.default_rng(seed), **options).scores


def brightness(flair, t1w, mask):
    """Of FLAIR against white matter and against what is expected, on the brain's own box."""
    box, result = bounding_box(mask), np.zeros(mask.shape, np.float32)
    result[box] = brightness_in_box(flair[box], t1w[box], mask[box])
    return result


def brightness_in_box(flair, t1w, mask):
    sigma_mm = smoothing_mm(Scan(flair, t1w, mask), PARAMS)
    z, t = (smooth_inside(contrast, mask, (1, 1, 1), sigma_mm) for contrast in (flair, t1w))

    def compare(tissue):
        usual = expected_flair(z, t, mask, (1, 1, 1), PARAMS, reference=tissue)
        above_white, above_usual = z - usual.local, (z - usual.local - usual.level) / usual.spread
        bright = np.sqrt(np.maximum(above_white, 0) * np.maximum(above_usual, 0))
        return mask * rim_weight(mask, (1, 1, 1), PARAMS) * bright

    first = compare(mask)
    lesions = tail_point(first, mask, None, DetectionParameters.tail, 0.0).apply(first, mask)
    return compare(mask & ~ndimage.binary_dilation(lesions))


@pytest.mark.parametrize("name", ["directed", "latent", "faithful"])
def test_map_is_float32_zero_outside_and_seeded(model, name):
    params = replace(PARAMS, score=name)
    _, _, mask, _ = scene()
    first = score(model, params)
    assert first.dtype == np.float32
    assert first.shape == SHAPE
    assert not first[~mask].any()
    assert first[mask].std() > 0
    np.testing.assert_array_equal(first, score(model, params))
    assert (first != score(model, params, seed=1)).any()


def test_directed_finds_bright_spots_and_stays_between_its_bounds(model):
    flair, t1w, mask, spots = scene()
    result = score(model)
    bright = brightness(flair, t1w, mask)
    assert (result >= PARAMS.floor * bright - 1e-5).all()  # it cannot veto
    assert (result <= (PARAMS.floor + 1) * bright + 1e-5).all()
    assert average_precision(result[mask], spots[mask]) > 0.9


def test_noisy_scans_are_smoothed_more_within_bounds():
    _, t1w, mask, _ = scene()
    noise = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    widths = [smoothing_mm(Scan(sd * noise, t1w, mask), PARAMS) for sd in (0.1, 0.55, 3.0)]
    assert widths[0] == PARAMS.sigma_mm
    assert widths[1] == pytest.approx(0.55 / (2 * np.sqrt(np.pi) * PARAMS.noise), rel=0.1)
    assert widths[2] == PARAMS.sigma_max_mm
    left = smooth_inside(0.55 * noise, mask, (1, 1, 1e3), widths[1])
    assert left[10:-10, 10:-10].std() == pytest.approx(PARAMS.noise, rel=0.2)


def test_direction_dark_spots_do_not_count(model):
    flair, t1w, mask, spots = scene()
    dark = flair - 12.0 * spots
    result = score_scan(model, Scan(dark, t1w, mask), PARAMS)
    core = ndimage.binary_erosion(spots & mask)
    assert result[core].max() == 0
    assert result.max() > 0


def test_the_score_is_the_brightness_weighted_by_the_latent_excess(model):
    flair, t1w, mask, spots = scene()
    scan = Scan(flair, t1w, mask)
    bright = brightness_maps(scan, PARAMS)
    np.testing.assert_allclose(bright.score, brightness(flair, t1w, mask), atol=1e-4)
    excess = latent_excess(model, scan, PARAMS, np.random.default_rng(0), bright).scores
    assert (excess >= 0).all()
    assert not excess[bright.score == 0].any()
    assert np.median(excess[spots & mask]) > 2 * np.median(excess[(bright.score > 0) & ~spots])
    expected = bright.score * (PARAMS.floor + excess / (1 + excess))
    np.testing.assert_allclose(score_scan(model, scan), expected, rtol=1e-6)


def test_directed_is_brightness_times_the_factor_of_latent(model):
    maps = {name: score(model, replace(PARAMS, score=name)) for name in ("directed", "brightness", "latent")}
    factor = PARAMS.floor + maps["latent"] / (1 + maps["latent"])
    np.testing.assert_allclose(maps["directed"], maps["brightness"] * factor, rtol=1e-6)
    assert (maps["brightness"] != maps["latent"]).any()
    assert all((found >= 0).all() for found in maps.values())  # the rule "tail" asks for this


def test_brightness_needs_no_model_and_draws_nothing():
    params, scan = replace(PARAMS, score="brightness"), Scan(*scene()[:3])
    found = anomaly_map(None, scan, params, np.random.default_rng(0), device="cuda")
    np.testing.assert_array_equal(found.scores, brightness_maps(scan, params).score)
    assert (found.device, found.warnings) == ("cpu", ())
    np.testing.assert_array_equal(found.scores, score_scan(None, scan, params, seed=1))
    for name in ("directed", "latent", "faithful"):
        with pytest.raises(ValueError, match=name):
            score_scan(None, scan, replace(PARAMS, score=name))


def test_air_around_the_brain_changes_no_brightness():
    flair, t1w, mask, _ = scene()
    grey = mask & (np.indices(SHAPE)[1] < 20)
    pad = [(3, 8), (11, 0), (2, 1)]
    small, large = (
        brightness_maps(Scan(*arrays[:3], grey_matter=arrays[3]), PARAMS)
        for arrays in ((flair, t1w, mask, grey), [np.pad(array, pad) for array in (flair, t1w, mask, grey)])
    )
    for name in ("flair", "score", "upper"):
        np.testing.assert_array_equal(getattr(large, name)[np.pad(mask, pad)], getattr(small, name)[mask])
    assert large.score.shape == tuple(
        n + before + after for n, (before, after) in zip(SHAPE, pad, strict=True)
    )
    assert not large.score[~np.pad(mask, pad)].any()


def test_the_tail_rule_does_not_depend_on_the_scale_of_brightness(model):
    _, _, mask, spots = scene()
    for name in ("brightness", "latent"):
        found = score(model, replace(PARAMS, score=name))
        once, thrice = (
            tail_point(scale * found, mask, None, 3.5, 0.7).apply(scale * found, mask)
            for scale in (np.float32(1), np.float32(3))
        )
        np.testing.assert_array_equal(once, thrice)
        assert (once & spots).any()


def test_the_latent_excess_is_what_the_patches_say_one_by_one(model):
    flair, t1w, mask, _ = scene()
    scan, rng = Scan(flair, t1w, mask), np.random.default_rng
    bright = brightness_maps(scan, PARAMS)
    wanted = bright.score > 0
    shown = mask & (bright.flair <= np.quantile(bright.flair[mask], 1 - PARAMS.trim))
    sample = draw_sample(model, scan, shown, PARAMS, rng(0))
    operator = fit_patient(sample.members, nu=PARAMS.nu, gamma=PARAMS.gamma).on()

    def surprise(latents):
        return -operator.log_score_samples(torch.from_numpy(latents)).numpy()

    def seen(contrast):
        image = Scan(contrast, t1w, mask).network_input()
        return surprise(embed_patches(model, extract_patches(image, np.argwhere(wanted))))

    excess = np.zeros(SHAPE, np.float32)
    gone = seen(flair) - seen(np.minimum(flair, bright.upper))
    excess[wanted] = np.maximum(gone, 0) / median_abs_deviation(surprise(sample.spread), scale="normal")
    expected = smooth_inside(excess, mask, (1, 1, 1), smoothing_mm(scan, PARAMS))
    found = latent_excess(model, scan, PARAMS, rng(0), bright).scores
    assert expected[wanted].max() > 1
    np.testing.assert_allclose(found[wanted], expected[wanted], rtol=1e-3, atol=1e-3)


def test_what_is_no_brighter_than_usual_has_no_excess(model):
    scan = Scan(*scene()[:3])
    bright = brightness_maps(scan, PARAMS)
    dark = replace(bright, upper=bright.upper + np.float32(1e3))  # nothing to take away
    assert not latent_excess(model, scan, PARAMS, np.random.default_rng(0), dark).scores.any()


def test_trimming_keeps_lesions_out_of_the_sample(model):
    """Lesions fill a twelfth of the brain and look alike: learnt as normal unless left out."""
    flair, t1w, mask, _ = scene(lesions=False)
    spots = mask & (np.indices(SHAPE)[0] % 12 < 3) & (np.indices(SHAPE)[1] % 12 < 4)
    flair = flair + 6.0 * spots
    weight = {}
    for trim in (0.0, 0.15):
        params = replace(PARAMS, trim=trim, floor=0.0)
        result = score_scan(model, Scan(flair, t1w, mask), params)
        weight[trim] = float(np.median(result[spots]))
    assert weight[0.15] > weight[0.0]


def test_usual_is_compared_with_grey_matter_where_it_is_known(model):
    _, _, mask, _ = scene()
    half = mask & (np.indices(SHAPE)[0] < 22)
    assert (score(model, grey_matter=half) != score(model)).any()


def test_the_users_threshold_does_not_change_the_score(model):
    other = replace(PARAMS, threshold="value=9", tail=1.0, accept=0.9, edge=0.0)
    np.testing.assert_array_equal(score(model, other), score(model))


def test_grids_and_tiny_masks(model):
    flair, t1w, mask, _ = scene()
    with pytest.raises(GridMismatchError):
        score_scan(model, Scan(flair, t1w[..., :-1], mask), PARAMS)
    few = np.zeros_like(mask)
    few[22, 22] = True
    with pytest.raises(BadDataError):
        score_scan(model, Scan(flair, t1w, few), PARAMS)


@pytest.mark.parametrize("name", ["directed", "latent"])
def test_evidence_is_the_patches_latents_along_the_direction(model, name):
    flair, t1w, mask, _ = scene()
    scan, params = Scan(flair, t1w, mask), replace(PARAMS, score=name)
    direction = np.random.default_rng(5).normal(size=16).astype(np.float32)
    maps = [
        anomaly_map(model, scan, params, np.random.default_rng(0), direction=direction, slices=slices)
        for slices in (None, 1, 4)
    ]
    found, bright = maps[0].evidence, brightness_maps(scan, params).score > 0
    assert found.dtype == np.float32
    assert found.shape == SHAPE
    latents = embed_patches(model, extract_patches(scan.network_input(), np.argwhere(bright)))
    np.testing.assert_allclose(found[bright], latents @ direction, rtol=1e-4, atol=1e-4)
    assert np.abs(found[bright]).max() > 0.1
    assert not found[~bright].any()
    for other in maps[1:]:
        np.testing.assert_allclose(other.evidence, found, atol=1e-5)
        np.testing.assert_allclose(other.scores, maps[0].scores, atol=1e-4)
    plain = anomaly_map(model, scan, params, np.random.default_rng(0))
    assert plain.evidence is None
    np.testing.assert_array_equal(plain.scores, maps[0].scores)  # asking for it changes nothing


@pytest.mark.parametrize("name", ["brightness", "faithful"])
def test_scores_that_look_at_no_bright_patches_have_no_evidence(model, name):
    scan = Scan(*scene()[:3])
    direction = np.ones(16, np.float32)
    found = anomaly_map(
        model, scan, replace(PARAMS, score=name), np.random.default_rng(0), direction=direction
    )
    assert found.evidence is None


@pytest.fixture(scope="module")
def template_model(model):
    """One model a voxel of the scene, each of a few healthy subjects' latents there; none on the left."""
    scans = [scene(lesions=False, seed=seed) for seed in range(9)]
    mask = scans[0][2] & (np.indices(SHAPE)[0] >= 22)
    coords = np.argwhere(mask)
    latents = [
        embed_patches(model, extract_patches(Scan(*scan[:3]).network_input(), coords)) for scan in scans
    ]
    fitted = fit_voxelwise(np.stack(latents), mask, np.eye(4), nu=0.1)
    numbers = np.full(SHAPE, -1, dtype=np.int32)
    numbers[mask] = np.arange(len(coords))
    return fitted, numbers


def test_directed_without_a_model_is_the_brightness_at_its_lowest_weight(model, template_model):
    fitted, numbers = template_model
    flair, t1w, mask, spots = scene()
    result = score_scan(model, Scan(flair, t1w, mask, voxels=numbers), PARAMS, one_class=fitted)
    bright = brightness(flair, t1w, mask)
    far = mask & ~ndimage.binary_dilation(numbers >= 0, iterations=4)  # D is smoothed
    assert (spots & far).any()
    np.testing.assert_allclose(result[far], PARAMS.floor * bright[far], atol=1e-4)
    assert (result[spots & (numbers >= 0)] > PARAMS.floor * bright[spots & (numbers >= 0)] + 0.05).any()


def test_faithful_without_a_model_is_neither_usual_nor_unusual(model, template_model):
    fitted, numbers = template_model
    flair, t1w, mask, _ = scene()
    params = replace(PARAMS, score="faithful")
    result = score_scan(model, Scan(flair, t1w, mask, voxels=numbers), params, one_class=fitted)
    known = mask & (numbers >= 0)
    assert (result[mask & ~known] == np.median(result[known])).all()
    assert not result[~mask].any()
    coords = np.argwhere(known)[::37]
    latents = embed_patches(model, extract_patches(Scan(flair, t1w, mask).network_input(), coords))
    expected = -fitted.on().decision_function(
        torch.from_numpy(latents), torch.from_numpy(numbers[known][::37].astype(np.int64))
    )
    np.testing.assert_allclose(result[tuple(coords.T)], expected, atol=1e-4)


def test_a_given_model_does_not_depend_on_the_drawn_patches(model, template_model):
    fitted, numbers = template_model
    flair, t1w, mask, _ = scene()
    scan, params = Scan(flair, t1w, mask, voxels=numbers), replace(PARAMS, score="faithful")
    first, second = (score_scan(model, scan, params, seed, one_class=fitted) for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_only_what_is_used_is_drawn_and_the_patients_own_sample_stays_the_same(model):
    flair, t1w, mask, _ = scene()
    scan, rng = Scan(flair, t1w, mask), np.random.default_rng
    both = draw_sample(model, scan, mask, PARAMS, rng(0))
    own = draw_sample(model, scan, mask, PARAMS, rng(0), spread=False)
    np.testing.assert_allclose(own.members, both.members, atol=1e-6)
    assert own.spread.shape == (0, 16)
    others = draw_sample(model, scan, mask, PARAMS, rng(0), members=False)
    assert others.members.shape == (0, PARAMS.n_samples, 16)
    assert len(others.spread) == len(both.spread) > 0


def test_nowhere_a_model_is_a_typed_error(model, template_model):
    flair, t1w, mask, _ = scene()
    nowhere = Scan(flair, t1w, mask, voxels=np.full(SHAPE, -1))
    for name in ("directed", "latent", "faithful"):
        with pytest.raises(BadDataError):
            score_scan(model, nowhere, replace(PARAMS, score=name), one_class=template_model[0])
