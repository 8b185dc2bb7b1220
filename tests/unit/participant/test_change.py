"""``--longitudinal`` on finished sessions: what is written, reused, mirrored, and what a broken participant does to the others."""

import csv
import json
from contextlib import suppress
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from compared import NEW, OLD, write_session

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.bids.status import StatusTable
from bids_wmh_uad.config import Performance, RunConfig, Running
from bids_wmh_uad.errors import OTHER_SIZE, BadDataError, StorageError
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.participant import comparison
from bids_wmh_uad.participant.change import natural, run_change

SHIFT = (4.0, -2.0, 2.5)
"""Of the second session, mm: whole voxels, for the made lesions have no partial volume."""


def configure(tmp_path, name="out", nprocs=1):
    out, work = tmp_path / name, tmp_path / "work"
    for path in (out, work):
        path.mkdir(exist_ok=True)
    (tmp_path / "bids").mkdir(exist_ok=True)
    return RunConfig(
        tmp_path / "bids", out, "participant",
        performance=Performance(nprocs=nprocs), running=Running(work_dir=work, longitudinal=True), run_uuid="run",
    )  # fmt: skip


def run(config, *subjects):
    table = StatusTable(config.log_dir / "status.tsv", (), ())
    failed = run_change(config, subjects, table)
    with (config.log_dir / "status.tsv").open() as lines:
        return failed, {row["participant_id"]: row for row in csv.DictReader(lines, delimiter="\t")}


def read(out, subject="1"):
    return json.loads(derivatives.longitudinal_path(out, subject).read_text())


def rows(out, session, subject="1"):
    path = (
        out
        / f"sub-{subject}"
        / f"ses-{session}"
        / "anat"
        / f"sub-{subject}_ses-{session}_desc-change_lesions.tsv"
    )
    with path.open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def contents(out):
    return {
        path.relative_to(out): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A participant with two sessions, the second with a new lesion, compared."""
    config = configure(tmp_path_factory.mktemp("change"))
    write_session(config.output_dir, "1", "1", [OLD], seed=1, acq_time="2020-01-01T10:00:00")
    write_session(
        config.output_dir,
        "1",
        "2",
        [OLD, NEW],
        seed=2,
        shift=SHIFT,
        acq_time="2022-01-01T10:00:00",
    )
    failed, status = run(config, "1")
    assert not failed
    assert status["sub-1"]["status"] == "done"
    return config


def test_the_new_lesion_is_found_and_the_old_one_is_stable(compared):
    found = {row["status"]: row for row in rows(compared.output_dir, 2)}
    assert sorted(found) == ["new", "stable"]
    assert (found["stable"]["lesions_before"], found["stable"]["lesions_after"]) == ("1", "1")
    assert (found["new"]["lesions_before"], found["new"]["lesions_after"]) == ("n/a", "2")
    place = [float(found["new"][axis]) for axis in "xyz"]
    np.testing.assert_allclose(place, np.add(NEW, SHIFT) - (64, 72, 70), atol=1.5)
    assert 0.6 < float(found["new"]["change_mm3"]) / 905 < 1.4


def test_masks_and_map_lie_on_the_later_flair(compared):
    summary = next((compared.output_dir / "sub-1/ses-2").rglob("*_desc-wmh_summary.json"))
    flair = nib.load(result_path(summary, "flair"))
    for name in ("change_map", "new_mask", "enlarging_mask", "shrinking_mask"):
        image = nib.load(str(summary).replace("desc-wmh_summary.json", f"space-FLAIR_desc-{name}.nii.gz"))
        assert image.shape == flair.shape
        np.testing.assert_allclose(image.affine, flair.affine)
    new = (
        np.asanyarray(
            nib.load(
                str(summary).replace("desc-wmh_summary.json", "space-FLAIR_desc-new_mask.nii.gz")
            ).dataobj
        )
        > 0
    )
    truth = np.asanyarray(nib.load(result_path(summary, "lesions")).dataobj) == 2
    assert 2 * (new & truth).sum() / (new.sum() + truth.sum()) > 0.8


def test_heads_of_one_size_move_rigidly(compared):
    (pair,) = read(compared.output_dir)["pairs"]
    assert (pair["motion"], pair["warnings"]) == ("rigid", [])
    assert 0 <= pair["size_difference_percent"] < 1
    for motion in motions(compared.output_dir, (1, 2)):
        assert np.allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-5)


def test_the_summary_knows_the_years_and_all_its_files(compared):
    content = read(compared.output_dir)
    assert [session["session_id"] for session in content["sessions"]] == ["ses-1", "ses-2"]
    (pair,) = content["pairs"]
    assert pair["years"] == pytest.approx(2.0, abs=0.01)
    assert [session["years"] for session in content["sessions"]] == [0.0, pair["years"]]
    assert (pair["new_count"], pair["stable_count"], pair["kind"]) == (1, 1, "consecutive")
    assert pair["change_ml_lower"] < pair["change_ml"] < pair["change_ml_upper"]
    assert all((compared.output_dir / name).is_file() for name in content["files"])


def test_a_second_run_does_nothing_and_a_changed_session_is_compared_again(compared, tmp_path):
    before = contents(compared.output_dir)
    _, status = run(compared, "1")
    assert status["sub-1"]["status"] == "already done"
    assert contents(compared.output_dir) == before
    lost = compared.output_dir / read(compared.output_dir)["files"][-1]
    content = lost.read_bytes()
    lost.unlink()
    _, status = run(compared, "1")
    assert status["sub-1"]["status"] == "done"
    assert lost.read_bytes() == content
    assert contents(compared.output_dir) == before


def test_exchanged_sessions_on_two_processes_give_the_mirrored_result(compared, tmp_path):
    config = configure(tmp_path, nprocs=2)
    write_session(config.output_dir, "1", "1", [OLD, NEW], seed=2, shift=SHIFT)
    write_session(config.output_dir, "1", "2", [OLD], seed=1)
    assert not run(config, "1")[0]
    mirrored, (pair,), (first,) = (
        {row["status"]: row for row in rows(config.output_dir, 2)},
        read(config.output_dir)["pairs"],
        read(compared.output_dir)["pairs"],
    )
    assert sorted(mirrored) == ["resolved", "stable"]
    assert pair["change_ml"] == pytest.approx(-first["change_ml"], abs=1e-6)
    moves = [(root, name) for root, name in ((compared.output_dir, "1"), (config.output_dir, "2"))]
    texts = [
        next((root / f"sub-1/ses-{name}").rglob("*to-longitudinal*.txt")).read_text() for root, name in moves
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("scale", [(1.03, 1.03, 1.03), (1.0, 1.03, 0.99)])
def test_heads_of_other_sizes_meet_halfway_and_it_is_said(tmp_path, scale):
    found = {}
    for name, order in (("out", (1, 2)), ("mirrored", (2, 1))):
        config = configure(tmp_path, name)
        write_session(config.output_dir, "1", str(order[0]), [OLD], seed=1)
        write_session(config.output_dir, "1", str(order[1]), [OLD, NEW], seed=2, shift=SHIFT, scale=scale)
        assert not run(config, "1")[0]
        (pair,) = read(config.output_dir)["pairs"]
        assert pair["motion"] == "affine"
        assert pair["size_difference_percent"] == pytest.approx(3, abs=1)
        assert [warning["code"] for warning in pair["warnings"]] == [OTHER_SIZE.code]
        found[name] = (
            pair,
            {row["status"] for row in rows(config.output_dir, 2)},
            motions(config.output_dir, order),
        )
    assert found["out"][1] == {"new", "stable"}
    assert found["mirrored"][1] == {"resolved", "stable"}
    assert found["out"][0]["change_ml"] == pytest.approx(-found["mirrored"][0]["change_ml"], abs=1e-6)
    first, second = found["out"][2]
    assert np.array_equal([first, second], found["mirrored"][2])
    assert np.linalg.det(first) * np.linalg.det(second) == pytest.approx(1, abs=1e-4)  # halfway in size
    assert np.linalg.det(first) / np.linalg.det(second) == pytest.approx(np.prod(scale), rel=0.01)


def motions(out, sessions):
    return [
        read_transform(next((out / f"sub-1/ses-{name}").rglob("*to-longitudinal*.txt"))) for name in sessions
    ]


def test_a_broken_participant_leaves_the_others(tmp_path):
    config = configure(tmp_path)
    for subject in ("1", "2"):
        for session in ("1", "2"):
            write_session(config.output_dir, subject, session, [OLD], seed=int(session))
    write_session(config.output_dir, "3", "1", [OLD])
    broken = next((config.output_dir / "sub-1/ses-2").rglob("*desc-preproc_T1w.nii.gz"))
    broken.write_bytes(broken.read_bytes()[:1000])
    failed, status = run(config, "1", "2", "3")
    assert [type(error) for error in failed] == [BadDataError] or issubclass(type(failed[0]), BadDataError)
    assert str(broken) in str(failed[0])
    assert {name: row["status"] for name, row in status.items()} == {"sub-1": "failed", "sub-2": "done"}
    assert not derivatives.longitudinal_path(config.output_dir, "1").exists()
    assert not list(config.output_dir.glob("sub-1/ses-*/anat/*change*"))
    assert {row["status"] for row in rows(config.output_dir, 2, "2")} == {
        "stable"
    }  # scanned twice, nothing new


def test_three_sessions_are_compared_in_pairs_and_as_a_whole_and_another_scanner_is_said(tmp_path):
    config = configure(tmp_path)
    for session, lesions in (("1", [OLD]), ("2", [OLD]), ("3", [OLD, NEW])):
        write_session(config.output_dir, "1", session, lesions, seed=int(session))
    assert not run(config, "1")[0]
    content = read(config.output_dir)
    assert [(pair["session_before"], pair["session_after"], pair["kind"]) for pair in content["pairs"]] == [
        ("ses-1", "ses-2", "consecutive"), ("ses-2", "ses-3", "consecutive"), ("ses-1", "ses-3", "total"),
    ]  # fmt: skip
    assert [[warning["code"] for warning in pair["warnings"]] for pair in content["pairs"]] == [
        [],
        ["OTHER_SCANNER"],
        ["OTHER_SCANNER"],
    ]
    anat = config.output_dir / "sub-1/ses-3/anat"
    assert (anat / "sub-1_ses-3_space-FLAIR_desc-totalnew_mask.nii.gz").is_file()
    for session in ("2",):  # it goes, and what was said of it with it
        for path in (config.output_dir / f"sub-1/ses-{session}").rglob("*"):
            if path.name.endswith("_summary.json"):
                path.unlink()
    assert not run(replace(config, run_uuid="again"), "1")[0]
    assert [pair["kind"] for pair in read(config.output_dir)["pairs"]] == ["consecutive"]
    assert not list(config.output_dir.rglob("*total*"))
    assert not list((config.output_dir / "sub-1/ses-2").rglob("*change*"))


def test_labels_are_ordered_as_people_do():
    assert sorted(["ses-10", "ses-2", "ses-1b", "ses-1a"], key=natural) == [
        "ses-1a",
        "ses-1b",
        "ses-2",
        "ses-10",
    ]


@pytest.mark.parametrize(
    ("raised", "first"), [(KeyboardInterrupt(), "interrupted"), (StorageError("full"), "failed")]
)
def test_what_a_stopped_run_did_not_compare_is_said(tmp_path, monkeypatch, raised, first):
    config = configure(tmp_path)
    for subject in ("1", "2"):
        for session in ("1", "2"):
            write_session(config.output_dir, subject, session, [OLD])

    def stop(*_):
        raise raised

    monkeypatch.setattr(comparison, "align", stop)
    with suppress(KeyboardInterrupt):
        run(config, "1", "2")
    with (config.log_dir / "status.tsv").open() as lines:
        status = [row["status"] for row in csv.DictReader(lines, delimiter="\t")]
    assert status == [first, "interrupted"]
