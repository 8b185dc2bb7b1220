"""The group level, on made-up results: the cohort's table, and the evaluation against references."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_wmh_uad import files
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import RunConfig, Running, Selection
from bids_wmh_uad.errors import (
    EXIT_OK,
    EXIT_SESSION_FAILED,
    NO_REFERENCE,
    NO_RESULTS,
    NO_SUCH_DIRECTORY,
    BadDataError,
    BadImageError,
    GridMismatchError,
    MissingInputError,
)
from bids_wmh_uad.workflows import group

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (16, 14, 6)
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
VOXEL_ML = 0.003


def truth_mask() -> NDArray[np.uint8]:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 4:9, 2:4] = 1
    return mask


def save(path: Path, data: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def summary(subject: str, session: str | None = None, **values: Any) -> dict[str, Any]:
    made = {
        "participant_id": f"sub-{subject}", "session_id": f"ses-{session}" if session else "n/a", "status": "done",
        "wmh_volume_ml": 0.12, "lesion_count": 1, "largest_lesion_ml": 0.12, "icv_ml": 1.2, "wmh_percent_icv": 10.0,
        "threshold": {"name": "tail", "parameter": 6.0, "value": 2.5}, "model": {"name": "default", "digest": "0"},
        "score": "directed", "registration_overlap": 0.97, "warnings": ["look"],
    }  # fmt: skip
    return made | values


def write_summary(out: Path, content: dict[str, Any]) -> Path:
    subject, session = content["participant_id"][4:], content["session_id"]
    found = Session(
        subject, None if session == "n/a" else session[4:], Path(f"sub-{subject}_FLAIR.nii.gz"), Path()
    )
    path = derivatives.output_path(out, found, "summary")
    files.write_atomically(path, files.dump_json(content))
    return path


def write_session(
    out: Path, subject: str, session: str | None = None, mask: NDArray[Any] | None = None
) -> Path:
    """A finished session whose map is brightest where its mask is, on a FLAIR that shows nothing."""
    path = write_summary(out, summary(subject, session))
    start = str(path).removesuffix(derivatives.OUTPUTS["summary"])
    mask = truth_mask() if mask is None else mask
    rng = np.random.default_rng(0)
    images = {
        "brain": np.ones(SHAPE, np.uint8), "mask": mask,
        "anomaly": (mask + 0.5 * rng.random(SHAPE)).astype(np.float32),
        "flair": rng.normal(100, 10, SHAPE).astype(np.float32),
    }  # fmt: skip
    for name, data in images.items():
        save(Path(start + derivatives.OUTPUTS[name]), data)
    sidecar = derivatives.sidecar_path(Path(start + derivatives.OUTPUTS["flair"]))
    sidecar.write_text(json.dumps({"WhiteMatter": {"mode": 100.0, "scale": 10.0}}))
    return path


def write_failure(out: Path, subject: str, session: str | None, reason: str) -> None:
    content = {"participant_id": f"sub-{subject}", "session_id": f"ses-{session}" if session else "n/a",
               "status": "failed", "reason": reason}  # fmt: skip
    files.write_atomically(derivatives.failure_path(out, subject, session), files.dump_json(content))


def reference_path(root: Path, subject: str, session: str | None = None, label: str = "WMH") -> Path:
    anat = derivatives.session_directory(root, subject, session)
    middle = f"_ses-{session}" if session else ""
    return anat / f"sub-{subject}{middle}_space-FLAIR_label-{label}_mask.nii.gz"


def config(out: Path, **settings: Any) -> RunConfig:
    return RunConfig(Path("/none"), out, "group", running=Running(work_dir=out / "work"), **settings)


# ---------------------------------------------------------------- the table


def test_one_row_per_session_in_order(tmp_path: Path) -> None:
    for subject, session in (("2", "1"), ("10", None), ("1", "2"), ("1", "1")):
        write_summary(tmp_path, summary(subject, session))
    rows = group.cohort_table(tmp_path)
    ids = [(row["participant_id"], row["session_id"]) for row in rows]
    assert ids == [("sub-1", "ses-1"), ("sub-1", "ses-2"), ("sub-10", "n/a"), ("sub-2", "ses-1")]
    assert all(list(row) == list(group.WMH_COLUMNS) for row in rows)


def test_zero_lesions_are_zero_and_failed_is_n_a(tmp_path: Path) -> None:
    write_summary(tmp_path, summary("1", wmh_volume_ml=0.0, lesion_count=0, largest_lesion_ml=0.0))
    write_summary(tmp_path, summary("2"))
    write_failure(tmp_path, "3", "1", "it broke")
    assert group.run_group(config(tmp_path)) == EXIT_OK
    table = pd.read_csv(tmp_path / "group_wmh.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table.columns) == list(group.WMH_COLUMNS)
    assert json.loads((tmp_path / "group_wmh.json").read_text()) == group.WMH_COLUMNS
    assert list(table["status"]) == ["done", "done", "failed"]
    assert list(table["wmh_volume_ml"]) == ["0", "0.12", "n/a"]
    assert list(table["lesion_count"]) == ["0", "1", "n/a"]
    assert list(table["reason"]) == ["n/a", "n/a", "it broke"]
    assert list(table["threshold_rule"]) == ["tail=6", "tail=6", "n/a"]
    assert list(table["warnings"]) == ["1", "1", "n/a"]
    assert (tmp_path / "group.html").is_file()
    assert not (tmp_path / "group_evaluation.tsv").exists()


def test_an_unreadable_summary_is_no_row(tmp_path: Path) -> None:
    write_summary(tmp_path, summary("1"))
    write_summary(tmp_path, summary("2")).write_text("{")
    assert [row["participant_id"] for row in group.cohort_table(tmp_path)] == ["sub-1"]


def test_no_results_are_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError) as raised:
        group.cohort_table(tmp_path)
    assert str(raised.value) == NO_RESULTS.format(path=tmp_path)


def test_the_group_level_keeps_the_link_to_the_raw_data(tmp_path: Path) -> None:
    write_summary(tmp_path, summary("1"))
    derivatives.write_dataset_files(tmp_path, Path("/data/bids"))
    before = (tmp_path / "dataset_description.json").read_bytes()
    group.run_group(config(tmp_path))
    assert (tmp_path / "dataset_description.json").read_bytes() == before


def test_a_second_run_changes_no_table(tmp_path: Path) -> None:
    write_session(tmp_path / "out", "1")
    save(reference_path(tmp_path / "ref", "1"), truth_mask())
    stamps = []
    for _ in range(2):
        group.run_group(config(tmp_path / "out", reference=tmp_path / "ref"))
        stamps.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("group_*")})
    assert stamps[0] == stamps[1]
    assert set(stamps[0]) == {f"group_{name}" for name in ("wmh.tsv", "wmh.json", "evaluation.tsv", "evaluation.json", "summary.json")}  # fmt: skip


def test_reports_are_rebuilt_for_the_participants_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for subject in ("1", "2"):
        write_summary(tmp_path, summary(subject))
    write_failure(tmp_path, "2", "9", "it broke")
    asked: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(
        "bids_wmh_uad.workflows.participant.write_reports",
        lambda _, subjects, failures: asked.append((list(subjects), failures)),
    )
    plain = replace(config(tmp_path), analysis_level="participant")
    group.rebuild_reports(plain)
    group.rebuild_reports(replace(plain, selection=Selection(participant_label=("2", "none"))))
    assert asked == [(["1", "2"], {"sub-2/ses-9": "it broke"}), (["2"], {"sub-2/ses-9": "it broke"})]
    assert group.rebuild_reports(config(tmp_path)) == EXIT_OK
    assert (tmp_path / "group.html").is_file()


# ----------------------------------------------------------- the evaluation


def test_a_perfect_mask_has_dice_and_ap_1(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    measures = group.evaluate_session(path, save(reference_path(tmp_path, "1"), truth_mask()))
    assert measures["dice"] == measures["ap"] == measures["auroc"] == measures["best_dice"] == 1.0
    assert measures["reference_volume_ml"] == pytest.approx(truth_mask().sum() * VOXEL_ML)
    assert measures["baseline_ap"] < 0.5  # its FLAIR is noise


def test_half_a_mask_has_the_dice_of_the_definition(tmp_path: Path) -> None:
    mask = truth_mask()
    mask[:, :, 3] = 0
    path = write_session(tmp_path / "out", "1", mask=mask)
    measures = group.evaluate_session(path, save(reference_path(tmp_path, "1"), truth_mask()))
    assert measures["dice"] == pytest.approx(2 * 20 / (20 + 40))


def test_a_bright_flair_makes_a_good_baseline(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    flair = Path(str(path).replace(derivatives.OUTPUTS["summary"], derivatives.OUTPUTS["flair"]))
    save(flair, (100 + 80 * truth_mask()).astype(np.float32))
    measures = group.evaluate_session(path, save(reference_path(tmp_path, "1"), truth_mask()))
    assert measures["baseline_ap"] > 0.9


def test_other_pathology_and_air_do_not_count(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    truth = truth_mask()
    truth[4:8, 4:9, 3] = 2  # found, but neither right nor wrong
    assert group.evaluate_session(path, save(reference_path(tmp_path, "1"), truth))["dice"] == 1.0
    brain = np.ones(SHAPE, np.uint8)
    brain[0] = 0
    save(Path(str(path).replace(derivatives.OUTPUTS["summary"], derivatives.OUTPUTS["brain"])), brain)
    truth = truth_mask()
    truth[0] = 1
    assert group.evaluate_session(path, save(reference_path(tmp_path, "2"), truth))["dice"] == 1.0


def test_a_trailing_axis_of_a_reference_does_not_matter(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    reference = save(reference_path(tmp_path, "1"), truth_mask()[..., None])
    assert group.evaluate_session(path, reference)["dice"] == 1.0


@pytest.mark.parametrize("kind", ["shape", "affine"])
def test_another_grid_names_both_files(tmp_path: Path, kind: str) -> None:
    path = write_session(tmp_path / "out", "1")
    data = truth_mask()[:-1] if kind == "shape" else truth_mask()
    reference = save(
        reference_path(tmp_path, "1"), data, AFFINE if kind == "shape" else np.diag([1.0, 1, 3.1, 1])
    )
    with pytest.raises(GridMismatchError) as raised:
        group.evaluate_session(path, reference)
    assert str(reference) in str(raised.value)
    assert derivatives.OUTPUTS["mask"] in str(raised.value)


@pytest.mark.parametrize("kind", ["truncated", "corrupt", "text", "4D"])
def test_an_unusable_reference_is_named(tmp_path: Path, kind: str) -> None:
    path = write_session(tmp_path / "out", "1")
    noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    reference = save(reference_path(tmp_path, "1"), np.stack([noise] * 2, -1) if kind == "4D" else noise)
    whole = reference.read_bytes()
    broken = {
        "truncated": whole[: len(whole) // 2],
        "corrupt": whole[:12] + b"\xff" * 400,
        "text": b"no image",
    }
    reference.write_bytes(broken.get(kind, whole))
    with pytest.raises(BadImageError, match=str(reference)):
        group.evaluate_session(path, reference)


def test_a_missing_sidecar_is_named(tmp_path: Path) -> None:
    path = write_session(tmp_path / "out", "1")
    flair = Path(str(path).replace(derivatives.OUTPUTS["summary"], derivatives.OUTPUTS["flair"]))
    derivatives.sidecar_path(flair).unlink()
    with pytest.raises(BadDataError, match=r"desc-preproc_FLAIR\.json"):
        group.evaluate_session(path, save(reference_path(tmp_path, "1"), truth_mask()))


@pytest.mark.parametrize("session", [None, "1"])
@pytest.mark.parametrize("label", ["WMH", "lesion"])
def test_references_are_found_by_entities(tmp_path: Path, session: str | None, label: str) -> None:
    expected = save(reference_path(tmp_path, "1", session, label), truth_mask())
    save(reference_path(tmp_path, "2", session), truth_mask())
    save(reference_path(tmp_path, "1", "2"), truth_mask())
    assert group.find_reference(tmp_path, "sub-1", f"ses-{session}" if session else "n/a") == expected
    assert group.find_reference(tmp_path, "sub-1", "ses-9") is None


def test_what_cannot_be_evaluated_does_not_stop_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("bids_wmh_uad").propagate = True
    out, references = tmp_path / "out", tmp_path / "ref"
    paths = {subject: write_session(out, subject, "1") for subject in ("good", "none", "other")}
    write_failure(out, "failed", "1", "it broke")
    save(reference_path(references, "good", "1"), truth_mask())
    save(reference_path(references, "other", "1"), truth_mask()[:-1])
    save(reference_path(references, "failed", "1"), truth_mask())
    assert group.run_group(config(out, reference=references)) == EXIT_SESSION_FAILED
    table = pd.read_csv(out / "group_evaluation.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table["participant_id"]) == ["sub-good", "sub-other"]
    assert list(table["dice"]) == ["1", "n/a"]
    assert list(table["wmh_volume_ml"]) == ["0.12", "0.12"]
    assert NO_REFERENCE.format(where=paths["none"].name, path=references) in caplog.text
    content = json.loads((out / "group_summary.json").read_text())
    assert (content["sessions"], content["dice"]) == (2, {"mean": 1.0, "median": 1.0, "n": 1})


def test_a_missing_reference_dataset_is_said(tmp_path: Path) -> None:
    write_session(tmp_path / "out", "1")
    with pytest.raises(MissingInputError) as raised:
        group.run_group(config(tmp_path / "out", reference=tmp_path / "none"))
    assert str(raised.value) == NO_SUCH_DIRECTORY.format(path=tmp_path / "none")
