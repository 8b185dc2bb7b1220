"""The benchmark of change: what it counts, and that each of its methods sees a lesion that came."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from scripts import load_benchmark

from bids_wmh_uad.core.change.departure import Pair
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.phantom import Change

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (60, 60, 60)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_benchmark("change")


def _ball(centre: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    grid = np.indices(SHAPE)
    return np.asarray(sum((x - c) ** 2 for x, c in zip(grid, centre, strict=True)) <= radius**2)


STAYS, GROWS, NEW = _ball((20, 20, 20), 4), _ball((40, 20, 30), 4), _ball((30, 42, 30), 4)
GROWN = _ball((40, 20, 30), 5)


@pytest.fixture(scope="module")
def case(script: ModuleType) -> Any:
    """Lesion 1 stays, 2 grows, 3 is new."""
    rng = np.random.default_rng(0)
    before = np.where(GROWS, 2, np.where(STAYS, 1, 0))
    after = np.where(GROWN, 2, np.where(NEW, 3, np.where(STAYS, 1, 0)))
    truth = np.stack([before, after]).astype(np.int32)
    noise = rng.standard_normal((2, 2, *SHAPE)).astype(np.float32) * 0.03
    flair = 1 + 0.6 * (truth > 0) + noise[0]
    fates = {n: script.Fate(name, 250.0) for n, name in enumerate(("stable", "enlarging", "new"), start=1)}
    pair = Pair(flair.astype(np.float32), 1 + noise[1], _ball((30, 30, 30), 28), 1.0)
    fossa = np.zeros((2, *SHAPE), bool)
    return script.Case("one", pair, truth, truth, fossa, np.eye(4), fates)


def test_counts(script: ModuleType) -> None:
    truth = np.zeros(SHAPE, int)
    truth[2:5, 2:5, 2:5] = 1  # 27 voxels, found
    truth[10:13, 2:5, 2:5] = 2  # not found
    truth[20:22, 2:4, 2] = 3  # found, but too small to count
    found = np.zeros(SHAPE, bool)
    found[4:8, 2:5, 2:5] = True  # right
    found[20:22, 2:4, 2:8] = True  # right as well: it touches a lesion that is there
    found[40:43, 40:43, 40:43] = True  # wrong
    found[50, 50, 50] = True  # wrong, but too small to count
    count = script.count_new(truth, found, 1.0)
    assert count == script.Count(true=2, hit=1, pieces=3, right=2)
    assert (count + count).measures == {
        "recall": 0.5, "precision": 0.667, "true": 4, "hit": 2, "pieces": 6, "right": 4,
    }  # fmt: skip
    assert script.Count().measures["recall"] is None
    assert script.count_new(truth, found, 4.0).true == 3  # larger voxels: all count


def test_auc(script: ModuleType) -> None:
    assert script.auc([1.0, 2.0], [0.0, 1.0]) == 0.875
    assert script.auc([], [1.0]) is None


@pytest.mark.parametrize("name", ["by_program", "by_masks", "by_subtraction", "latents", "random"])
def test_methods_see_what_came(script: ModuleType, case: Any, name: str) -> None:
    witness = {"latents": True, "random": False}
    method = script.WithLatents(witness[name]) if name in witness else getattr(script, name)
    outcome = method(case, ChangeParameters())
    assert outcome.new[NEW].mean() > 0.5
    assert not outcome.new[GROWN | STAYS].any()
    assert not outcome.new[~ndimage.binary_dilation(NEW, iterations=3)].any()
    assert outcome.came[GROWN & ~GROWS].mean() > 0.3
    assert not outcome.came[STAYS].any()
    assert outcome.growth(case.places[2]) > outcome.growth(case.places[1])
    turned = script.replace(
        case,
        pair=script.replace(case.pair, flair=case.pair.flair[::-1].copy(), t1w=case.pair.t1w[::-1].copy()),
        lesions=case.lesions[::-1].copy(), truth=case.truth[::-1].copy(),
    )  # fmt: skip
    back = method(turned, ChangeParameters())
    assert back.went[NEW].mean() > 0.5
    assert not back.new.any()


def test_score_of_a_pair_in_which_nothing_changed(script: ModuleType, case: Any) -> None:
    nothing = np.zeros(SHAPE, bool)
    still = script.replace(case, fates={1: script.Fate("stable", 250.0)})
    score = script.Score()
    for new in (nothing, NEW):
        score.add(still, script.Outcome(new, new, nothing, lambda _: 0.0))
    assert score.measures["quiet"] == 0.5
    assert score.measures["true"] == 0
    score.add(case, script.Outcome(NEW, NEW, nothing, lambda place: float(place.of(GROWN).sum())))
    assert score.measures["recall"] == score.measures["precision"] == 1
    assert score.measures["growth_auc"] == 1


@pytest.mark.parametrize("variant", ["same", "scanner", "voxels", "scaled", "stretched", "rescans"])
def test_variants_of_the_second_session(script: ModuleType, variant: str) -> None:
    made = sys.modules["change_phantoms"].make_courses(2, 1, variant)
    assert len(made) == (4 if variant == "rescans" else 6)
    assert made["sub-01_ses-1"].changes == ()
    (change,) = made["sub-01_ses-2"].changes
    if variant == "rescans":
        assert change == Change()
    else:
        assert change.new == script.CHANGE.new
        assert (change != script.CHANGE) == (variant != "same")
        assert made["sub-02_ses-3"].changes == (change, Change())


def test_patient(script: ModuleType, case: Any) -> None:
    nothing = np.zeros(SHAPE, bool)
    found = script.score_patient(case, script.Outcome(NEW, NEW | GROWN & ~GROWS, nothing, float))
    for what, lesions in (("new", 1), ("came", 2)):
        measures = found[what]
        assert measures["true"] == measures["hit"] == lesions
        assert measures["recall"] == measures["precision"] == measures["voxel_recall"] == 1
        assert measures["voxel_precision"] == 1
    assert found["went"]["true"] == 0
    assert found["went"]["voxel_recall"] is None
    half = script.score_patient(case, script.Outcome(NEW & (np.arange(60) < 30), STAYS, nothing, float))
    assert 0.3 < half["new"]["voxel_recall"] < 0.6
    assert half["new"]["voxel_precision"] == 1
    assert half["came"]["voxel_precision"] == 0


def test_place_of_a_true_lesion(script: ModuleType, case: Any) -> None:
    for number, truth in ((2, GROWN), (3, NEW)):
        place = case.places[number]
        assert place.of(truth).all()
        assert place.mask.sum() == truth.sum()
        assert place.and_what_touches.mask.sum() == ndimage.binary_dilation(truth, np.ones((3, 3, 3))).sum()
        assert place.and_what_touches.of(truth).sum() == truth.sum()
    missed = script.replace(case, lesions=np.where(case.lesions == 1, 0, case.lesions))
    assert 1 not in missed.places
    merged = script.replace(case, lesions=np.minimum(case.lesions, 1))  # the program sees one lesion
    assert [*merged.places] == [2]


def test_a_place_at_the_edge_of_the_grid(script: ModuleType) -> None:
    image = np.arange(27).reshape(3, 3, 3)
    corner = sys.modules["change_methods"].Place((slice(2, 3),) * 3, np.ones((1, 1, 1), bool))
    assert corner.of(image) == [26]
    assert sorted(corner.and_what_touches.of(image)) == [13, 14, 16, 17, 22, 23, 25, 26]
