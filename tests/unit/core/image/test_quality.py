"""Each number of the checks says what it should, on drawn brains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_wmh_uad import errors
from bids_wmh_uad.core.image import quality as checks
from bids_wmh_uad.core.image.quality import Brain, measure, quality_warnings


def make_brain(seed: int = 0, size: int = 56) -> Brain:
    """A ball of white matter in a shell of grey, with fluid in the middle and at the rim."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(size) - size / 2] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0)) / (size / 2 - 4)
    grey, white = (radius > 0.72) & (radius < 0.93), (radius > 0.3) & (radius < 0.72)
    mask, fluid = radius < 1, (radius < 0.3) | (radius > 0.93)
    flair, t1w = (
        levels[0] * grey + levels[1] * white + levels[2] * (fluid & mask)
        for levels in ((1.2, 1.0, 0.3), (0.7, 1.0, 0.2))
    )
    noise = 0.03 * rng.standard_normal((2, *mask.shape)) * mask
    return Brain(
        (flair + noise[0]).astype(np.float32), (t1w + noise[1]).astype(np.float32), mask, grey.astype(np.float32),
        white.astype(np.float32), t1w.astype(np.float32), np.array([2.8, 2.8, 2.8]),
    )  # fmt: skip


def codes(brain: Brain, *, stripped: bool = False, **changes: float) -> list[str]:
    numbers = measure(brain) | {"overlap": 0.98, "scale_min": 0.97, "scale_max": 1.03} | changes
    return [warning.code for warning in quality_warnings(numbers, stripped=stripped)]


def test_a_good_brain_raises_no_warning() -> None:
    assert codes(make_brain()) == []


BRAIN = make_brain()
HALF = BRAIN.mask & (np.arange(BRAIN.mask.shape[0])[:, None, None] < 28)
CUT = np.s_[:, :, 24:]
BROKEN = {
    errors.SAME_CONTRAST: replace(BRAIN, flair=BRAIN.t1w),
    errors.FLAIR_CONTRAST: replace(BRAIN, flair=BRAIN.t1w, t1w=BRAIN.flair),
    errors.T1W_CONTRAST: replace(BRAIN, flair=BRAIN.t1w, t1w=BRAIN.flair),
    errors.FLUID_CONTRAST: replace(BRAIN, flair=np.where(BRAIN.mask, 2 - BRAIN.flair, 0).astype(np.float32)),
    errors.POOR_ALIGNMENT: replace(BRAIN, t1w=np.random.default_rng(1).permutation(BRAIN.t1w.ravel()).reshape(BRAIN.mask.shape)),
    errors.POOR_TEMPLATE: replace(BRAIN, t1w=(1.4 - BRAIN.t1w) * BRAIN.mask),
    errors.EMPTY_BRAIN: replace(BRAIN, flair=BRAIN.flair * HALF),
    errors.CUT_BRAIN: Brain(*(getattr(BRAIN, name)[CUT] for name in ("flair", "t1w", "mask", "grey", "white", "template")), BRAIN.spacing),
    errors.ODD_VOLUME: replace(BRAIN, spacing=BRAIN.spacing * 1.5),
    errors.THICK_SLICES: replace(BRAIN, spacing=np.array([1.5, 1.2, 8.0])),
    errors.NOISY: replace(BRAIN, flair=(BRAIN.flair + np.random.default_rng(2).normal(0, 0.5, BRAIN.mask.shape) * BRAIN.mask).astype(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("warning", BROKEN, ids=lambda warning: warning.code)
def test_each_fault_raises_its_warning(warning: errors.WarningText) -> None:
    assert warning.code in codes(BROKEN[warning])


def test_a_warning_holds_its_number() -> None:
    numbers = measure(BRAIN) | {"overlap": 0.5, "scale_min": 0.97, "scale_max": 1.03}
    (warning,) = quality_warnings(numbers, stripped=False)
    assert warning == errors.LOW_OVERLAP.format(value=0.5, limit=0.95)


def test_overlap_is_judged_by_how_the_masks_were_made() -> None:
    assert codes(BRAIN, overlap=0.9) == ["LOW_OVERLAP"]
    assert not codes(BRAIN, overlap=0.9, stripped=True)
    assert codes(BRAIN, overlap=0.8, stripped=True) == ["LOW_OVERLAP"]


@pytest.mark.parametrize("change", [{"scale_max": 1.6}, {"scale_min": 0.5}, {"template_r": float("nan")}])
def test_odd_scales_and_numbers_that_are_none_are_warned_of(change: dict[str, float]) -> None:
    assert len(codes(BRAIN, **change)) == 1


def test_dependence_does_not_depend_on_the_form_of_the_relation() -> None:
    rng = np.random.default_rng(0)
    t1w = rng.normal(0, 1, 20_000).astype(np.float32)
    eta2, r = checks.dependence((t1w**2).astype(np.float32), t1w)
    assert eta2 > 0.9
    assert abs(r) < 0.1
    assert checks.dependence(rng.normal(0, 1, 20_000).astype(np.float32), t1w)[0] < 0.05
    assert checks.dependence(np.ones(100, np.float32), np.ones(100, np.float32)) == (0.0, 0.0)


def test_cut_area_is_the_largest_share_of_a_face() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[2:8, 2:8, 3:] = True
    assert checks.cut_area(mask) == 1.0
    mask[4:, :, 9] = False
    assert checks.cut_area(mask) == pytest.approx(2 / 6)
