"""What of an earlier run may be reused, what not and why, and which lesions are left out."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.references import Reference
from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.cli.run import main
from bids_wmh_uad.errors import (
    NO_SUCH_DIRECTORY,
    NOT_REUSED,
    BadImageError,
    GridMismatchError,
    MissingInputError,
)
from bids_wmh_uad.imaging import registration
from bids_wmh_uad.imaging.masks import MARGIN_MM, read_lesions
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.workflows import reuse
from bids_wmh_uad.workflows.reuse import (
    LABEL_FREE_MASKS,
    NO_MASKS,
    REFERENCE_MASKS,
    datasets,
    find_lesions,
    find_preprocessed,
)

SHAPE, AFFINE = (12, 14, 5), np.diag([1.0, 1.0, 4.0, 1.0])
SCALING = {"mode": 100.5, "scale": 7.25}


def image(path, data=None, affine=AFFINE, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).random(shape, dtype=np.float32) if data is None else data
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def session(tmp_path):
    anat = tmp_path / "raw" / "sub-1" / "ses-2" / "anat"
    return Session("1", "2", image(anat / "sub-1_ses-2_FLAIR.nii.gz"), image(anat / "sub-1_ses-2_T1w.nii"))


@pytest.fixture
def finished(tmp_path, session):
    """A derivatives dataset with the session's results."""
    out = tmp_path / "out"
    for name in reuse.REUSED_IMAGES:
        path = image(derivatives.output_path(out, session, name))
        if name != "brain":
            about = {"WhiteMatter": SCALING, "SkullStripped": name == "t1w"}
            derivatives.sidecar_path(path).write_text(json.dumps(about))
    for name in reuse.REUSED_TRANSFORMS:
        derivatives.output_path(out, session, name).write_text(registration.itk_text(np.eye(4)))
    image(derivatives.output_path(out, session, "mask"), np.zeros(SHAPE, np.uint8))
    summary = derivatives.output_path(out, session, "summary")
    signature = derivatives.preprocessing_signature(session, 5)
    summary.write_text(json.dumps({"preprocessing": signature, "registration_overlap": 0.97}))
    return out


def test_options_take_paths_and_fmripreps_form(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()
    base = [str(tmp_path / "raw"), str(tmp_path / "out"), "participant"]
    config = parse_args([*base, "-d", "one", "name=/two", "--derivatives", str(odd), "/two"])
    assert [path.name for path in config.selection.derivatives] == ["one", "two", "a=b"]
    assert all(path.is_absolute() for path in config.selection.derivatives)
    with pytest.raises(MissingInputError) as caught:
        datasets(config)
    assert str(caught.value) == NO_SUCH_DIRECTORY.format(path=config.selection.derivatives[0])
    assert datasets(parse_args(base)) == ()


def test_what_fits_is_found(session, finished, tmp_path, caplog):
    found = find_preprocessed(session, [tmp_path / "nothing", finished], 5)
    assert found.scaling == {"flair": SCALING, "t1w": SCALING}
    assert found.stripped == {"flair": False, "t1w": True}
    assert found.overlap == 0.97
    assert found.path("brain").is_file()
    assert caplog.text == ""
    assert find_preprocessed(session, [], 5) is None
    assert find_preprocessed(replace(session, session="3"), [finished], 5) is None


def test_a_dry_run_says_what_would_be_reused(session, finished, tmp_path, capsys):
    base = [str(tmp_path / "raw"), str(finished), "--dry-run", "--random-seed", "5", "--skip-bids-validation"]
    reused = str(derivatives.output_path(finished, session, "summary").parent)
    assert main([*base, "participant", "-d", str(finished)]) == 0
    assert f"  reused    {reused}\n" in capsys.readouterr().out
    assert main([*base, "participant"]) == 0  # its own results are made again
    assert "reused" not in capsys.readouterr().out
    assert main([*base, "train", "--output-model", str(tmp_path / "model")]) == 0
    assert f"  reused    {reused}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("seed", "spoil"), [
    (6, lambda out, session: None),
    (5, lambda out, session: image(session.flair, np.ones(SHAPE, np.float32))),
    (5, lambda out, session: image(derivatives.output_path(out, session, "brain"), shape=(12, 14, 6))),
    (5, lambda out, session: image(derivatives.output_path(out, session, "t1w"), affine=2 * AFFINE)),
    (5, lambda out, session: derivatives.output_path(out, session, "flair").write_bytes(b"no image")),
    (5, lambda out, session: derivatives.output_path(out, session, "flair").unlink()),
    (5, lambda out, session: derivatives.output_path(out, session, "t1w_to_flair").write_text("?")),
    (5, lambda out, session: derivatives.sidecar_path(derivatives.output_path(out, session, "t1w")).unlink()),
    (5, lambda out, session: derivatives.output_path(out, session, "summary").write_text("{")),
    (5, lambda out, session: derivatives.output_path(out, session, "summary").write_text(
        json.dumps({"preprocessing": derivatives.preprocessing_signature(session, 5)}))),
], ids=range(10))  # fmt: skip
def test_what_does_not_fit_is_said_and_left(session, finished, seed, spoil, caplog):
    spoil(finished, session)
    assert find_preprocessed(session, [finished], seed) is None
    assert NOT_REUSED.split("(")[0].format(where="sub-1/ses-2", path=finished) in caplog.text


def test_a_scan_that_cannot_be_read_is_left_to_the_run(session, finished, caplog):
    session.flair.unlink()
    assert find_preprocessed(session, [finished], 5) is None
    assert caplog.text == ""


def test_transforms_come_back_exactly(tmp_path):
    rng = np.random.default_rng(1)
    for _ in range(200):
        matrix = np.eye(4)
        matrix[:3, :3] += rng.normal(0, 0.2, (3, 3))
        matrix[:3, 3] = rng.normal(0, 80, 3)
        matrix = matrix.round(registration.DECIMALS)
        (tmp_path / "one.txt").write_text(registration.itk_text(matrix))
        (tmp_path / "two.txt").write_text(registration.itk_text(np.linalg.inv(matrix)))
        np.testing.assert_array_equal(
            read_transform(tmp_path / "one.txt").round(registration.DECIMALS), matrix
        )
        inverse = read_transform(tmp_path / "two.txt")
        np.testing.assert_array_equal(np.linalg.inv(inverse).round(registration.DECIMALS), matrix)


def test_reference_masks_come_before_the_programs_own(session, finished, tmp_path):
    earlier = find_preprocessed(session, [finished], 5)
    given = [finished, tmp_path / "manual"]
    assert find_lesions(session, given, None) == (NO_MASKS, None)
    assert find_lesions(session, given, earlier) == (LABEL_FREE_MASKS, Reference(earlier.path("mask")))
    mask = image(tmp_path / "manual/sub-1/ses-2/anat/sub-1_ses-2_label-lesion_mask.nii.gz")
    assert find_lesions(session, given, earlier) == (REFERENCE_MASKS, Reference(mask))
    assert find_lesions(session, given, None) == (REFERENCE_MASKS, Reference(mask))
    assert find_lesions(replace(session, subject="7"), given, None) == (NO_MASKS, None)


@pytest.fixture
def scan(tmp_path):
    """Stored from left to right and head to foot, 2 x 1 x 3 mm."""
    affine = np.array([[-2.0, 0, 0, 40], [0, 1, 0, -20], [0, 0, -3, 30], [0, 0, 0, 1]])
    return image(tmp_path / "scan.nii.gz", affine=affine), affine


def test_lesions_are_left_out_with_a_margin_in_mm_in_canonical_order(scan, tmp_path):
    path, affine = scan
    data = np.zeros(SHAPE, np.uint8)
    data[3, 6, 1], data[9, 2, 4] = 1, 2  # other pathology, too
    left_out = read_lesions(image(tmp_path / "mask.nii.gz", data, affine), path, may_resample=False)[0]
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    seeds = np.argwhere(np.asanyarray(canonical.dataobj))
    mm = np.indices(SHAPE).reshape(3, -1).T[:, None] - seeds[None]
    distance = np.linalg.norm(mm * np.array([2.0, 1.0, 3.0]), axis=2).min(axis=1)
    np.testing.assert_array_equal(left_out.ravel(), distance <= MARGIN_MM)
    assert left_out.sum() > 8


def test_an_empty_mask_leaves_nothing_out(scan, tmp_path):
    path, affine = scan
    mask = image(tmp_path / "mask.nii.gz", np.zeros(SHAPE, np.uint8), affine)
    assert not read_lesions(mask, path, may_resample=False)[0].any()


def test_masks_that_cannot_be_used_are_typed_errors(scan, tmp_path):
    path, affine = scan
    data = np.ones((6, 14, 5), np.uint8)
    coarse = affine @ np.diag([2.0, 1, 1, 1])
    coarse[0, 3] -= 1.0
    mask = image(tmp_path / "mask.nii.gz", data, coarse)
    with pytest.raises(GridMismatchError, match="--resample-reference"):
        read_lesions(mask, path)
    assert read_lesions(mask, path, may_resample=True)[0].all()
    mask.write_bytes(b"no image")
    with pytest.raises(BadImageError, match=mask.name):
        read_lesions(mask, path, may_resample=True)
