"""Two sessions compared on made images whose changes are known: every status, exchange of the sessions, a null that is calibrated."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bids_wmh_uad.core.change.compare import Marks, compare
from bids_wmh_uad.core.change.departure import Pair, find_departure
from bids_wmh_uad.core.change.evidence import false_discovery, learn_null, peaks
from bids_wmh_uad.core.change.intensity import normal_tissue
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.tissue import near_fossa, where_lesions_may_be

SHAPE = (72, 72, 64)
AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
NOWHERE = np.zeros(SHAPE, bool)
PARAMETERS = ChangeParameters()
NOISE, STEP = 0.03, 0.4
MERGING = [((47, 22, 24), 3.2), ((47, 30, 24), 3.2)]
BRIDGE = ((47, 26, 24), 3.2)
BEFORE = {
    "enlarging": ((26, 26, 23), 3.5),
    "stable": ((26, 46, 23), 4),
    "shrinking": ((26, 26, 42), 5),
    "resolved": ((26, 46, 42), 3),
}
AFTER = {
    "enlarging": ((26, 26, 23), 5.5),
    "stable": ((26, 46, 23), 4),
    "shrinking": ((26, 26, 42), 3.2),
    "new": ((46, 46, 41), 3),
}


def ball(centre, radius):
    grid = np.indices(SHAPE).transpose(1, 2, 3, 0)
    return np.linalg.norm(grid - centre, axis=-1) <= radius


def head():
    mask = ball(np.array(SHAPE) / 2, 31)
    inner = ball(np.array(SHAPE) / 2, 24)
    flair = np.where(inner, 1.0, 1.3) * mask
    t1w = np.where(inner, 1.0, 0.7) * mask
    return mask, flair, t1w


def session(rng, lesions, shift=0.0):
    """FLAIR and T1w with lesions, and the mask that a perfect detector makes."""
    _, flair, t1w = head()
    truth = np.any([ball(*lesion) for lesion in lesions], axis=0) if lesions else np.zeros(SHAPE, bool)
    flair = ndimage.shift(ndimage.gaussian_filter(flair + STEP * truth, 0.7), [shift] * 3, order=1)
    t1w = ndimage.shift(ndimage.gaussian_filter(t1w - 0.1 * truth, 0.7), [shift] * 3, order=1)
    noisy = [
        ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.6) * NOISE * 3 + image for image in (flair, t1w)
    ]
    labels = ndimage.label(truth, np.ones((3, 3, 3)))[0].astype(np.int32)
    return [image.astype(np.float32) for image in noisy], labels


def scene(first, second, seed=0):
    rng = np.random.default_rng(seed)
    (one, labels), (other, others) = session(rng, first), session(rng, second)
    images = [np.stack(both) for both in zip(one, other, strict=True)]
    mask = ndimage.binary_erosion(head()[0], iterations=2)
    pair = Pair(images[0], images[1], mask, 1.0)
    return pair, Marks(labels, others, np.zeros(SHAPE, bool))


def exchanged(pair, marks):
    return (
        replace(pair, flair=pair.flair[::-1].copy(), t1w=pair.t1w[::-1].copy()),
        replace(marks, before=marks.after, after=marks.before),
    )


@pytest.fixture(scope="module")
def compared():
    pair, marks = scene([*BEFORE.values(), *MERGING], [*AFTER.values(), *MERGING, BRIDGE])
    return pair, marks, compare(pair, marks, AFFINE, PARAMETERS)


def nearest(found, centre):
    return min(found.lesions, key=lambda lesion: np.linalg.norm(np.subtract(lesion.centre, centre)))


@pytest.mark.parametrize("status", ["new", "enlarging", "stable", "shrinking", "resolved"])
def test_every_lesion_is_followed(compared, status):
    centre = {**BEFORE, **AFTER}[status][0]
    assert nearest(compared[2], centre).status == status
    assert len(compared[2].lesions) == 6


def test_two_lesions_and_what_came_between_them_merged_and_backwards_split(compared):
    pair, marks, found = compared
    assert nearest(found, BRIDGE[0]).status == "merged"
    assert len(nearest(found, BRIDGE[0]).match.before) == 2
    back = compare(*exchanged(pair, marks), AFFINE, PARAMETERS)
    assert nearest(back, BRIDGE[0]).status == "split"


def test_growth_is_measured_within_its_interval(compared):
    for status in ("enlarging", "shrinking", "new", "resolved"):
        truths = [ball(*lesions[status]).sum() if status in lesions else 0 for lesions in (BEFORE, AFTER)]
        lesion = nearest(compared[2], {**BEFORE, **AFTER}[status][0])
        low, high = lesion.change.interval(0.999)
        assert low < truths[1] - truths[0] < high
        assert abs(lesion.change.mm3 - (truths[1] - truths[0])) < 0.3 * max(truths)


def test_tissue_lies_where_it_came_and_went(compared):
    found = compared[2]
    assert (found.new > 0).sum() == ball(*AFTER["new"]).sum()
    grown = ball(*AFTER["enlarging"]) & ~ball(*BEFORE["enlarging"])
    assert ((found.enlarging > 0) & grown).sum() > 0.7 * grown.sum()
    assert not ((found.enlarging > 0) & ball(*BEFORE["enlarging"])).any()
    assert ((found.gone > 0) & ball(*BEFORE["resolved"])).sum() == ball(*BEFORE["resolved"]).sum()


def test_a_lesion_that_grew_at_one_end_and_shrank_at_the_other_has_both_drawn():
    """Not stable, though its volume is nearly the same: by what came and went, the larger says which."""
    (first, middle, last), radius = [(26, 26 + step, 32) for step in (0, 7, 14)], 4
    pair, marks = scene([(first, radius), (middle, radius)], [(middle, radius), (last, radius + 0.2)])
    for both, status, sides in (((pair, marks), "enlarging", (last, first)), (exchanged(pair, marks), "shrinking", (first, last))):  # fmt: skip
        found = compare(*both, AFFINE, PARAMETERS)
        assert [lesion.status for lesion in found.lesions] == [status]
        assert (found.enlarging > 0)[ball(sides[0], radius - 1)].mean() > 0.8
        assert (found.gone > 0)[ball(sides[1], radius - 1)].mean() > 0.8


def test_exchanged_sessions_give_the_mirrored_result(compared):
    pair, marks, found = compared
    back = compare(*exchanged(pair, marks), AFFINE, PARAMETERS)
    np.testing.assert_array_equal(back.departure.score, -found.departure.score)
    mirrored = {"new": "resolved", "enlarging": "shrinking", "merged": "split"}
    mirrored |= {other: one for one, other in mirrored.items()}
    for lesion in found.lesions:
        other = nearest(back, lesion.centre)
        assert other.status == mirrored.get(lesion.status, lesion.status)
        assert other.change.mm3 == pytest.approx(-lesion.change.mm3, rel=1e-6, abs=1e-6)
        assert other.change.sd == pytest.approx(lesion.change.sd, rel=1e-6)
    assert back.total.mm3 == pytest.approx(-found.total.mm3, rel=1e-6)
    np.testing.assert_array_equal(back.gone > 0, (found.new > 0) | (found.enlarging > 0))


def test_change_without_a_mask_is_new_where_it_looks_like_a_lesion():
    pair, marks = scene([], [AFTER["new"]])
    unseen = replace(marks, after=np.zeros_like(marks.after))
    found = compare(pair, unseen, AFFINE, PARAMETERS)
    assert [(lesion.status, lesion.match.after) for lesion in found.lesions] == [("new", ())]
    assert (found.new > 0)[ball(*AFTER["new"])].mean() > 0.6
    dark = replace(pair, t1w=pair.t1w * np.float32(0.7))

    def with_t1w(rise):
        """T1w of the later session raised in the lesion, which alone takes a tenth of it."""
        raised = np.stack([np.zeros(SHAPE), rise * ball(*AFTER["new"])])
        return replace(pair, t1w=pair.t1w + raised.astype(np.float32))

    for other in (dark, with_t1w(0.3)):  # half as much as FLAIR: less fluid
        assert compare(other, unseen, AFFINE, PARAMETERS).lesions == ()
    enhancing = compare(with_t1w(0.17), unseen, AFFINE, PARAMETERS)
    assert [lesion.status for lesion in enhancing.lesions] == ["new"]


def test_in_the_posterior_fossa_only_the_masks_tell_lesions():
    pair, marks = scene([], [AFTER["new"]])
    fossa = ball(AFTER["new"][0], 2)
    below = replace(marks, after=np.zeros_like(marks.after), fossa=fossa)
    assert compare(pair, below, AFFINE, PARAMETERS).lesions == ()
    found = compare(pair, replace(marks, fossa=fossa), AFFINE, PARAMETERS)
    assert [lesion.status for lesion in found.lesions] == ["new"]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_new_where_the_masks_differ_and_the_images_do_not(seed):
    pair, marks = scene(list(BEFORE.values()), list(BEFORE.values()), seed)
    lost = np.where(marks.after == 2, 0, marks.after)  # one that the detector missed
    found = compare(pair, replace(marks, after=lost), AFFINE, PARAMETERS)
    assert {lesion.status for lesion in found.lesions} == {"stable"}
    assert not (found.new.any() or found.enlarging.any() or found.gone.any())


@pytest.mark.parametrize(("place", "radius"), [((46, 46, 41), 2.2), ((46, 46, 41), 4), ((38, 34, 34), 9)])
def test_a_whole_lesion_that_one_mask_has_is_new_or_resolved_where_the_images_changed(place, radius):
    pair, marks = scene([BEFORE["stable"]], [BEFORE["stable"], (place, radius)], seed=7)
    for status, both, tissue in (("new", (pair, marks), "new"), ("resolved", exchanged(pair, marks), "gone")):
        found = compare(*both, AFFINE, PARAMETERS)
        lesion = nearest(found, place)
        assert lesion.status == status
        assert bool(lesion.match.before) == (status == "resolved")
        assert bool(lesion.match.after) == (status == "new")
        here = getattr(found, tissue) == 1 + found.lesions.index(lesion)
        assert np.array_equal(here, ball(place, radius))  # all of it, and nothing else
        assert [other.status for other in found.lesions if other is not lesion] == ["stable"]


def test_a_lesion_that_was_there_too_faint_for_its_mask_is_not_new():
    """It grew by less than it had: the images show it in the session whose mask has not found it."""
    pair, marks = scene([((46, 46, 41), 4)], [((46, 46, 41), 4.8)], seed=9)
    unseen = replace(marks, before=np.zeros_like(marks.before))
    for status, both in (("enlarging", (pair, unseen)), ("shrinking", exchanged(pair, unseen))):
        (lesion,) = compare(*both, AFFINE, PARAMETERS).lesions
        assert lesion.status == status


def test_what_changed_is_not_its_own_null():
    """Half of the white matter's lesions came; the height that change must have is that of a pair without any."""
    many = [((22 + 9 * i, 22 + 9 * j, 32), 3) for i in range(4) for j in range(4)]
    limits = []
    for after in ([], many):
        pair, marks = scene([], after, seed=8)
        lesion = marks.after > 0
        field = where_lesions_may_be(pair, lesion, NOWHERE, PARAMETERS)
        departure = find_departure(pair, lesion, PARAMETERS)
        limits.append(
            learn_null(departure, field & normal_tissue(pair.mask, lesion), PARAMETERS).height(1e-4)
        )
    assert limits[1] < 1.1 * limits[0]
    found = compare(pair, marks, AFFINE, PARAMETERS)
    assert [lesion.status for lesion in found.lesions] == ["new"] * len(many)


def test_lesions_may_be_in_white_matter_and_where_masks_have_them():
    pair, marks = scene([], [((36, 36, 9), 3)])  # in the dark rim
    lesion, fossa = marks.after > 0, ball((36, 50, 20), 4)
    field = where_lesions_may_be(pair, lesion, near_fossa(fossa, 1.0, PARAMETERS), PARAMETERS)
    assert field[36, 36, 32]
    assert field[lesion & pair.mask].all()
    assert not field[36, 36, 58]
    assert not field[ball((36, 50, 20), 4 + PARAMETERS.fossa_mm - 1)].any()


def test_the_score_of_what_did_not_change_is_a_standard_normal_in_the_middle():
    departure = find_departure(scene([], [], seed=5)[0], NOWHERE, PARAMETERS)
    pair = scene([], [], seed=5)[0]
    inside = departure.score[pair.mask]
    quartiles = np.quantile(inside, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [-0.6745, 0, 0.6745], atol=0.06)


def test_misaligned_edges_are_no_change():
    rng = np.random.default_rng(3)
    (one, labels), (other, _) = session(rng, [BEFORE["stable"]]), session(rng, [BEFORE["stable"]], shift=0.4)
    images = [np.stack(both) for both in zip(one, other, strict=True)]
    pair = Pair(images[0], images[1], ndimage.binary_erosion(head()[0], iterations=2), 1.0)
    marks = Marks(labels, labels, np.zeros(SHAPE, bool))
    found = compare(pair, marks, AFFINE, PARAMETERS)
    assert {lesion.status for lesion in found.lesions} == {"stable"}


def test_p_values_of_unchanged_peaks_are_not_too_small():
    small = []
    for seed in range(3):
        pair, _ = scene([], [], seed=10 + seed)
        departure = find_departure(pair, NOWHERE, PARAMETERS)
        null = learn_null(departure, pair.mask, PARAMETERS)
        fresh = find_departure(scene([], [], seed=20 + seed)[0], NOWHERE, PARAMETERS)
        p = null.p_values(fresh.score[peaks(fresh.score, pair.mask)])
        small.append([(p < level).mean() / level for level in (0.05, 0.01)])
    assert np.mean(small, axis=0).max() < 1.5


def test_false_discovery_is_benjamini_and_hochbergs():
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216])  # their rule: 2 of 10
    assert false_discovery(p, 0.05) == 0.008
    assert false_discovery(np.array([0.5, 0.9]), 0.05) == 0
    assert false_discovery(np.array([]), 0.05) == 0


def test_what_is_out_of_place_is_neither_new_nor_resolved():
    """Something thin and bright that no mask has lies two voxels farther: one side gains what the other loses."""
    place = AFTER["new"][0]
    tube, beside = ([((42 + step, 30 + k, 40), 1.3) for k in range(9)] for step in (0, 2))
    pair, marks = scene(tube, beside, seed=4)
    unseen = replace(marks, before=np.zeros_like(marks.before), after=np.zeros_like(marks.after))
    assert compare(pair, unseen, AFFINE, PARAMETERS).lesions == ()
    apart = scene([(place, 2.6)], [(tuple(np.add(place, (-20, 0, 0))), 2.6)], seed=4)[0]
    assert {lesion.status for lesion in compare(apart, unseen, AFFINE, PARAMETERS).lesions} == {
        "new",
        "resolved",
    }
