"""Followed phantoms: what is said to change changes by as much, and all else stays as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage

from bids_wmh_uad.errors import BAD_VALUE, UsageError
from bids_wmh_uad.phantom import Change, PhantomSpec, PhantomSubject, follow_up, main, make_subject
from bids_wmh_uad.phantom.followup import widen_ventricles
from bids_wmh_uad.phantom.spec import FATES

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Skull-stripped, thin slices, without what differs between two scans of the same head: all differences are changes.
SPEC = PhantomSpec(
    seed=4, lesion_volume_ml=8, head=False, mimics=0, noise=0, bias=0, dtype="float32",
    flair_zooms=(1.2, 1.2, 2), t1w_zooms=(2, 2, 2), changes=(),
)  # fmt: skip
CHANGE = Change(new=4, grown=4, shrunk=3, resolved=3, growth=0.2, shrinkage=0.4, position=0)


def _array(image: Any) -> NDArray[Any]:
    return np.asarray(image.dataobj)


def _sizes(subject: PhantomSubject) -> NDArray[np.float64]:
    """Volume of each numbered lesion on the FLAIR grid, mm3."""
    counts = np.bincount(_array(subject.followed).ravel(), minlength=1 + max(x.index for x in subject.course))
    return counts * float(abs(np.linalg.det(subject.flair.affine)))


@pytest.fixture(scope="module")
def first() -> PhantomSubject:
    return make_subject(SPEC)


@pytest.fixture(scope="module")
def later() -> PhantomSubject:
    return make_subject(replace(SPEC, changes=(CHANGE,)))


@pytest.fixture(scope="module")
def rescan() -> PhantomSubject:
    """Nothing changed, but all that differs between two scans does."""
    spec = replace(SPEC, changes=(Change(position=5),), noise=0.03, bias=0.08, mimics=1)
    return make_subject(spec)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("new", -1),
        ("resolved", 51),
        ("growth", 0),
        ("growth", float("nan")),
        ("shrinkage", 1),
        ("lesion_mm3", (300, 30)),
        ("lesion_mm3", (0, 30)),
        ("atrophy", 0.6),
        ("position", 21),
        ("years", -1),
        ("flair_zooms", (1, 1, 9)),
        ("scale", (1.0, 1.2, 1.0)),
        ("scale", (1.02, 1.02)),
    ],
)
def test_change_refuses(option: str, value: Any) -> None:
    start = BAD_VALUE.format(option=option, value=value, expected="")[:-1]
    with pytest.raises(UsageError) as caught:
        Change(**{option: value})
    assert str(caught.value).startswith(start.rstrip())


def test_first_session_is_an_ordinary_phantom(first: PhantomSubject) -> None:
    ordinary = make_subject(replace(SPEC, changes=None))
    assert ordinary.followed is None
    assert ordinary.course == ()
    for name in ("t1w", "flair", "lesions", "brain", "mimics"):
        mine, other = getattr(first, name), getattr(ordinary, name)
        assert np.array_equal(_array(mine), _array(other)), name
        assert np.array_equal(mine.affine, other.affine)


def test_numbers_are_the_truth(first: PhantomSubject, later: PhantomSubject) -> None:
    for subject in (first, later):
        assert subject.followed.get_data_dtype() == np.uint16
        assert np.array_equal(_array(subject.followed) > 0, _array(subject.lesions) > 0)
        true = np.array([x.volume_mm3 for x in subject.course if x.volume_mm3 > 100])
        seen = _sizes(subject)[[x.index for x in subject.course if x.volume_mm3 > 100]]
        assert len(true) >= 5
        assert 0.7 < np.median(seen / true) < 1.1  # thin borders are not half of a voxel
    assert {x.fate for x in first.course} == {None}


def test_lesions_change_as_asked(later: PhantomSubject) -> None:
    assert Counter(x.fate for x in later.course if x.fate != "stable") == {
        "new": 4,
        "enlarging": 4,
        "shrinking": 3,
        "resolved": 3,
    }
    sizes = _sizes(later)
    for lesion in later.course:
        before, now = lesion.volume_before_mm3, lesion.volume_mm3
        assert lesion.fate in FATES
        if lesion.fate == "new":
            assert now >= 28
            assert before <= 0.06 * now
            assert sizes[lesion.index] > 0
        elif lesion.fate == "resolved":
            assert before >= 28
            assert now == sizes[lesion.index] == 0
        else:
            factor = {"enlarging": 1.2, "shrinking": 0.6, "stable": 1}[str(lesion.fate)]
            # A new lesion nearby takes a few voxels of a border over.
            assert now / before == pytest.approx(factor, abs=0.02) or before < 10


def test_changes_are_seen_and_nothing_else_is(first: PhantomSubject, later: PhantomSubject) -> None:
    """Without noise, bias, artefacts and motion the scans differ in the lesions that changed, and by a gain."""
    changed = [x.index for x in later.course if x.fate != "stable"]
    touched = np.isin(_array(first.followed), changed) | np.isin(_array(later.followed), changed)
    brain = _array(first.brain) > 0
    assert np.array_equal(brain, _array(later.brain) > 0)
    ratio = _array(later.flair)[brain] / _array(first.flair)[brain]
    gain = float(np.median(ratio))
    assert gain != 1
    away = ~ndimage.binary_dilation(touched, np.ones((3, 3, 3)), iterations=3)[brain]
    difference = np.abs(ratio[away] / gain - 1)
    assert difference.max() < 0.01  # the faint border of a few
    assert np.mean(difference > 1e-5) < 1e-3
    fates = {x.index: x.fate for x in later.course}
    new = np.isin(_array(later.followed), [n for n in changed if fates[n] == "new"])[brain]
    gone = np.isin(_array(first.followed), [n for n in changed if fates[n] == "resolved"])[brain]
    assert np.mean(ratio[new] > 1.05 * gain) > 0.9
    assert np.mean(ratio[gone] < 0.95 * gain) > 0.9


def test_same_changes_same_images(later: PhantomSubject) -> None:
    again = make_subject(replace(SPEC, changes=(CHANGE,)))
    assert np.array_equal(_array(again.flair), _array(later.flair))
    assert np.array_equal(_array(again.followed), _array(later.followed))
    assert again.course == later.course


def test_nothing_changed(first: PhantomSubject, rescan: PhantomSubject) -> None:
    assert {x.fate for x in rescan.course} == {"stable"}
    assert all(x.volume_before_mm3 == x.volume_mm3 for x in rescan.course)
    assert [x.volume_mm3 for x in rescan.course] == [x.volume_mm3 for x in first.course]
    assert not np.allclose(rescan.flair.affine, first.flair.affine, atol=0.1)  # the slices lie elsewhere
    dice = []
    for motion in (rescan.first_to_flair, np.eye(4)):
        moved = nib.Nifti1Image(_array(first.lesions).astype(np.float32), motion @ first.lesions.affine)
        here = resample_from_to(moved, rescan.flair, order=1).get_fdata() > 0.5
        truth = _array(rescan.lesions) > 0
        dice.append(2 * (here & truth).sum() / (here.sum() + truth.sum()))
    assert dice[0] > 0.85
    assert dice[1] < 0.7


def test_another_scanner(first: PhantomSubject) -> None:
    other = make_subject(replace(SPEC, changes=(Change(position=0, other_scanner=True),)))
    brain = _array(first.brain) > 0
    ratio = _array(other.flair)[brain] / _array(first.flair)[brain]
    assert np.percentile(ratio, 95) / np.percentile(ratio, 5) > 1.1
    assert [x.volume_mm3 for x in other.course] == [x.volume_mm3 for x in first.course]


@pytest.mark.parametrize("scale", [(1.02, 1.02, 1.02), (1.03, 1.0, 0.98)])
def test_a_scaled_session(first: PhantomSubject, scale: tuple[float, float, float]) -> None:
    other = make_subject(replace(SPEC, changes=(Change(position=0, scale=scale),)))
    volumes = [
        float(_array(x.brain).sum()) * abs(np.linalg.det(x.flair.affine[:3, :3])) for x in (first, other)
    ]
    assert volumes[1] / volumes[0] == pytest.approx(np.prod(scale), rel=0.003)
    assert np.linalg.det(other.first_to_flair) == pytest.approx(np.prod(scale))
    moved = nib.Nifti1Image(_array(first.brain).astype(np.float32), other.first_to_flair @ first.brain.affine)
    here, truth = resample_from_to(moved, other.flair, order=1).get_fdata() > 0.5, _array(other.brain) > 0
    assert 2 * (here & truth).sum() / (here.sum() + truth.sum()) > 0.985
    assert [x.volume_mm3 for x in other.course] == [x.volume_mm3 for x in first.course]


def test_third_session_goes_on_from_the_second(later: PhantomSubject) -> None:
    spec = replace(SPEC, changes=(CHANGE, Change(grown=3, growth=0.5, flair_zooms=(1.5, 1.5, 3))))
    third = make_subject(spec)
    assert third.flair.header.get_zooms() == pytest.approx((1.5, 1.5, 3))
    second = {x.index: x for x in later.course}
    fates = Counter(x.fate for x in third.course)
    assert fates["enlarging"] == 3
    assert fates["new"] == fates["resolved"] == 0
    for lesion in third.course:
        assert lesion.volume_before_mm3 == pytest.approx(second[lesion.index].volume_mm3, rel=1e-6)
        if lesion.fate == "enlarging":
            assert lesion.volume_mm3 / lesion.volume_before_mm3 == pytest.approx(1.5, abs=0.02)
    assert {n for n, x in second.items() if x.fate == "resolved"} & {x.index for x in third.course} == set()


def test_ventricles_widen() -> None:
    """A box of fluid grows by the share asked for; the tissue near it gives way, the rest stays."""
    csf = np.zeros((70, 80, 60), np.float32)
    csf[28:42, 25:55, 24:36] = 1
    near = np.exp(-ndimage.distance_transform_edt(csf < 0.5) / 6).astype(np.float32)
    moved = widen_ventricles(csf, near, 0.15).move(csf)
    assert moved.sum() / csf.sum() == pytest.approx(1.15, abs=0.03)
    mark = np.zeros_like(csf)
    mark[45:47, 39:41, 29:31] = 1  # beside the wall
    mark[65:67, 5:7, 5:7] = 1
    gone = widen_ventricles(csf, near, 0.15).move(mark)
    assert ndimage.center_of_mass(gone[:60])[0] > 45.7
    assert np.array_equal(gone[60:], mark[60:])


def test_atrophy_darkens_the_wall(first: PhantomSubject) -> None:
    wide = make_subject(replace(SPEC, changes=(Change(position=0, atrophy=0.3),)))
    before, now = (_array(x.flair) / np.median(_array(x.flair)[_array(x.brain) > 0]) for x in (first, wide))
    brain = _array(first.brain) > 0
    fluid = [np.count_nonzero((x < 0.6) & brain) for x in (before, now)]
    assert fluid[1] > fluid[0]
    assert {x.fate for x in wide.course} == {"stable"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("followed") / "bids"
    options = [
        "--n-subjects",
        "1",
        "--n-controls",
        "1",
        "--no-head",
        "--lesion-volume",
        "8",
        "--n-sessions",
        "2",
    ]
    assert main([str(root), *options, "--new", "2", "--grown", "1", "--years", "1.5"]) == 0
    return root


def test_dataset(dataset: Path) -> None:
    sessions = dataset / "sub-01/sub-01_sessions.tsv"
    assert sessions.read_text().splitlines() == [
        "session_id\tacq_time",
        "ses-1\t2020-01-01T12:00:00",
        "ses-2\t2021-07-02T12:00:00",
    ]
    stem = "anat/sub-01_ses-2_space-FLAIR_desc-lesions_dseg"
    table = dataset / f"derivatives/truth/sub-01/ses-2/{stem}.tsv"
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0] == ["index", "name", "fate", "volume_before_mm3", "volume_mm3"]
    assert Counter(row[2] for row in rows[1:] if row[2] != "stable") == {
        "new": 2,
        "enlarging": 1,
        "shrinking": 2,
        "resolved": 2,
    }
    followed = nib.load(table.with_suffix(".nii.gz"))
    mask = nib.load(str(table).replace("desc-lesions_dseg.tsv", "label-WMH_mask.nii.gz"))
    assert np.array_equal(_array(followed) > 0, _array(mask) > 0)
    assert set(np.unique(_array(followed))) - {0} <= {int(row[0]) for row in rows[1:]}
    earlier = Path(str(table).replace("ses-2", "ses-1"))
    assert {line.split("\t")[2] for line in earlier.read_text().splitlines()[1:]} == {"n/a"}
    control = dataset / "derivatives/truth/sub-02/ses-2/anat/sub-02_ses-2_space-FLAIR_desc-lesions_dseg.tsv"
    assert len(control.read_text().splitlines()) == 1


@pytest.mark.parametrize("part", [".", "derivatives/truth"])
def test_dataset_is_valid_bids(dataset: Path, part: str) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    command = [str(validator), "--ignoreWarnings", "--format", "json", str(dataset / part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["issues"]["issues"] == []
    assert done.returncode == 0


def test_cohort_of_rescans() -> None:
    specs = follow_up({"sub-01": SPEC, "sub-02": replace(SPEC, lesion_volume_ml=0)}, CHANGE, 3)
    assert list(specs) == [f"sub-0{k}_ses-{n}" for k in (1, 2) for n in (1, 2, 3)]
    assert specs["sub-01_ses-1"].changes == ()
    assert specs["sub-01_ses-3"].changes == (CHANGE, CHANGE)
    assert specs["sub-02_ses-2"].changes == (replace(CHANGE, new=0),)
