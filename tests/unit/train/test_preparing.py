"""Which controls a training takes: those that this run prepared, or found to be of the same inputs; never an old copy."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.config import Method, Performance, Running, Selection, TrainConfig, Training
from bids_wmh_uad.errors import MISSING_FLAIR, NOT_ENOUGH_CONTROLS, NOT_PREPARED, MissingInputError
from bids_wmh_uad.imaging import registration
from bids_wmh_uad.imaging.controls import IMAGE_FILE, MASK_FILE, MATRIX_FILE, open_control
from bids_wmh_uad.interfaces.controls import CONFIRMED
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.train.run import _controls
from bids_wmh_uad.workflows import engine
from bids_wmh_uad.workflows.reuse import REUSED_IMAGES, REUSED_TRANSFORMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bids_wmh_uad.bids.dataset import Session

SHAPE, AFFINE = (24, 26, 8), np.diag([2.0, 2.0, 4.0, 1.0])
SUBJECTS = tuple("1234567")


def image(path: Path, seed: int, dtype: str = "float32") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).uniform(1, 100, SHAPE).astype(dtype)
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    return path


def finish(session: Session, out: Path, seed: int = 0) -> None:
    """What the participant level leaves of a session, as far as training reads it: nothing is preprocessed again."""
    for name in REUSED_IMAGES:
        path = image(
            derivatives.output_path(out, session, name), seed, "uint8" if name == "brain" else "float32"
        )
        if name != "brain":
            about = {"WhiteMatter": {"mode": 50.0, "scale": 10.0}, "SkullStripped": True}
            derivatives.sidecar_path(path).write_text(json.dumps(about))
    for name in REUSED_TRANSFORMS:
        derivatives.output_path(out, session, name).write_text(registration.itk_text(np.eye(4)))
    about = {
        "preprocessing": derivatives.preprocessing_signature(session, 0),
        "registration_overlap": 0.97,
    }
    derivatives.output_path(out, session, "summary").write_text(json.dumps(about))


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Controls that the participant level finished; one process does all, so that none has to start."""
    monkeypatch.chdir(tmp_path)
    root, out = tmp_path / "ds", tmp_path / "out"
    for number, subject in enumerate(SUBJECTS):
        for suffix in ("FLAIR", "T1w"):
            image(root / f"sub-{subject}" / "anat" / f"sub-{subject}_{suffix}.nii.gz", number)
    for number, session in enumerate(find_sessions(root, Selection(skip_bids_validation=True))[0]):
        finish(session, out, number)
    (tmp_path / "plugin.yml").write_text("plugin: Linear")
    return TrainConfig(
        root, out, "train",
        performance=Performance(use_plugin=tmp_path / "plugin.yml"),
        selection=Selection(skip_bids_validation=True),
        method=Method(),
        running=Running(work_dir=tmp_path / "work"),
        training=Training(output_model=tmp_path / "model"),
    )  # fmt: skip


def prepare(config: TrainConfig, run: str) -> tuple[dict[str, Path], bool]:
    config = replace(config, run_uuid=run)
    config.log_dir.mkdir(parents=True)
    with Locks() as locks:
        controls, complete = _controls(config, locks)
    return {session.subject: path for session, path in controls.items()}, complete


def read_status(config: TrainConfig) -> dict[str, dict[str, str]]:
    with (config.log_dir / "status.tsv").open() as handle:
        return {row["participant_id"]: row for row in csv.DictReader(handle, delimiter="\t")}


def scan(config: TrainConfig, suffix: str, subject: str = "2") -> Path:
    return config.bids_dir / f"sub-{subject}" / "anat" / f"sub-{subject}_{suffix}.nii.gz"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_4d(path: Path) -> None:
    nib.save(nib.concat_images([nib.load(path)] * 2), path)


BREAKERS: dict[str, Callable[[Path], object]] = {
    "cut off": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no scan"),
    "4D": make_4d,
    "constant": lambda path: nib.save(nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE), path),
}


def test_scans_that_broke_are_no_controls_any_more(
    cohort: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    first, complete = prepare(cohort, "first")
    assert (set(first), complete) == (set(SUBJECTS), True)
    broken = dict(zip(SUBJECTS, BREAKERS.values(), strict=False))
    for subject, spoil in broken.items():
        spoil(scan(cohort, "FLAIR", subject))
        truncate(scan(cohort, "T1w", subject))  # or brains would be looked for in it
    second, complete = prepare(cohort, "second")
    assert (set(second), complete) == (set(SUBJECTS) - set(broken), False)
    assert {NOT_PREPARED.format(where=f"sub-{subject}") for subject in broken} <= set(caplog.messages)
    assert all(path.is_dir() for path in first.values())  # the old copies are there, and of no use
    table = read_status(replace(cohort, run_uuid="second"))
    assert {subject: row["status"] for subject, row in table.items()} == {
        f"sub-{subject}": "failed" if subject in broken else "done" for subject in SUBJECTS
    }
    assert all("FLAIR" in row["reason"] for row in table.values() if row["status"] == "failed")


def test_a_control_too_large_for_the_memory_is_left_out_before_it_starts(cohort: TrainConfig) -> None:
    prepare(cohort, "first")
    small = replace(cohort, performance=replace(cohort.performance, mem_gb=0.01))
    with pytest.raises(MissingInputError, match=str(NOT_ENOUGH_CONTROLS.format(path=small.bids_dir, n=0))):
        prepare(small, "second")
    table = read_status(replace(small, run_uuid="second"))
    assert all("memory" in row["reason"] for row in table.values())


@pytest.mark.parametrize("gone", [["FLAIR"], ["T1w", "FLAIR"]])
def test_a_scan_that_is_gone_is_no_control_any_more(
    cohort: TrainConfig, caplog: pytest.LogCaptureFixture, gone: list[str]
) -> None:
    prepare(cohort, "first")
    for suffix in gone:
        scan(cohort, suffix).unlink()
    prepared, complete = prepare(cohort, "second")
    assert set(prepared) == set(SUBJECTS) - {"2"}
    said = "sub-2: " + MISSING_FLAIR.format(where="sub-2", t1w=scan(cohort, "T1w")) in caplog.messages
    assert said == (not complete) == (gone == ["FLAIR"])


def test_too_few_that_still_can_be_used_are_an_error(cohort: TrainConfig) -> None:
    prepare(cohort, "first")
    for subject in SUBJECTS[1:]:
        for suffix in ("FLAIR", "T1w"):
            truncate(scan(cohort, suffix, subject))
    with pytest.raises(MissingInputError) as raised:
        prepare(cohort, "second")
    assert str(raised.value) == NOT_ENOUGH_CONTROLS.format(path=cohort.bids_dir, n=1)


def test_what_did_not_change_is_not_prepared_again(cohort: TrainConfig) -> None:
    first, _ = prepare(cohort, "first")
    before = {path: (path / "image.npy").stat().st_mtime_ns for path in first.values()}
    os.utime(scan(cohort, "FLAIR"), ns=(1, 1))  # its content counts
    second, complete = prepare(cohort, "second")
    assert (second, complete) == (first, True)
    assert {path: (path / "image.npy").stat().st_mtime_ns for path in second.values()} == before


def test_other_preprocessed_images_are_another_control(cohort: TrainConfig) -> None:
    first, _ = prepare(cohort, "first")
    before = np.array(open_control(first["2"]).image)
    session = find_sessions(cohort.bids_dir, cohort.selection)[0][1]
    finish(session, cohort.output_dir, seed=77)
    second, _ = prepare(cohort, "second")
    assert not np.array_equal(open_control(second["2"]).image, before)


def test_another_flair_of_the_session_is_another_control(cohort: TrainConfig) -> None:
    first, _ = prepare(cohort, "first")
    other = image(scan(cohort, "FLAIR").with_name("sub-2_acq-a_FLAIR.nii.gz"), 9)
    scan(cohort, "FLAIR").unlink()
    session = find_sessions(cohort.bids_dir, cohort.selection)[0][1]
    assert session.flair == other
    finish(session, cohort.output_dir, seed=9)
    second, complete = prepare(cohort, "second")
    assert complete
    assert second["2"] != first["2"]


def test_half_a_prepared_copy_is_prepared_again(cohort: TrainConfig) -> None:
    first, _ = prepare(cohort, "first")
    whole = {subject: np.array(open_control(path).image) for subject, path in first.items()}
    for name, (gone, cut) in zip((IMAGE_FILE, MASK_FILE, MATRIX_FILE), ("12", "34", "56"), strict=True):
        (first[gone] / name).unlink()
        truncate(first[cut] / name)
    second, complete = prepare(cohort, "second")
    assert (second, complete) == (first, True)
    for subject, path in second.items():
        np.testing.assert_array_equal(open_control(path).image, whole[subject])


def test_an_earlier_runs_word_is_not_this_runs(cohort: TrainConfig) -> None:
    prepare(cohort, "first")
    for suffix in ("T1w", "FLAIR"):
        truncate(scan(cohort, suffix))
    prepared, complete = prepare(cohort, "second")
    assert (set(prepared), complete) == (set(SUBJECTS) - {"2"}, False)
    session = find_sessions(cohort.bids_dir, cohort.selection)[0][1]
    directory = engine.session_directory(session, cohort)
    assert (directory / engine.CONFIRM / CONFIRMED).read_text() == "first"
