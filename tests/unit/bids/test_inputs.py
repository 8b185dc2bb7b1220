"""What lies beside the dataset is not the dataset, and what shows something else is taken last, with a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

import pytest

from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.bids.references import Reference, find_reference
from bids_wmh_uad.cli.run import main
from bids_wmh_uad.config import Selection
from bids_wmh_uad.errors import (
    BAD_DATABASE,
    EXIT_OK,
    FOREIGN_DATABASE,
    MISNAMED,
    SPECIAL_SCAN,
    EmptySelectionError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Maker = Callable[..., Path]

T1W, FLAIR = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"
BESIDE = [
    "fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    "tmp_dcm2bids/sub-01/003_sub-01_FLAIR.nii.gz",
    "derivatives/x/sub-01/anat/sub-01_FLAIR.nii.gz",
    "sourcedata/sub-01/anat/sub-01_FLAIR.nii.gz",
    "rawdata/sub-01/anat/sub-01_FLAIR.nii.gz",
    "copy/of/ds/sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/extra/anat/sub-01_acq-a_FLAIR.nii.gz",
    "sub-01/anat/old/sub-01_acq-a_FLAIR.nii.gz",
    "sub-01/sub-01/anat/sub-01_acq-a_T1w.nii.gz",
    "sub-01/sub-01_acq-a_T1w.nii.gz",
    "sub-01/ses-1/func/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/ses-1/sub-01_ses-1_T1w.nii.gz",
    "sub-01_old/anat/sub-01_acq-a_T1w.nii.gz",
    "sub-01.bak/anat/sub-01_acq-a_FLAIR.nii.gz",
    "sub-01 (copy)/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
    "sub-01/ses-1.old/anat/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/anat/._sub-01_FLAIR.nii.gz",
    "sub-01_FLAIR.nii.gz",
    "anat/sub-01_FLAIR.nii.gz",
]
"""Where people's datasets have images that are not the dataset's."""


def anat(name: str, subject: str = "01") -> str:
    return f"sub-{subject}/anat/sub-{subject}_{name}.nii.gz"


@pytest.mark.parametrize("labels", [(), ("01",)])
def test_only_sub_and_anat_are_the_dataset(
    tmp_path: Path, make_dataset: Maker, caplog: pytest.LogCaptureFixture, labels: tuple[str, ...]
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, *BESIDE)
    for database in (None, tmp_path / "db", tmp_path / "db"):  # made, and read
        selection = Selection(participant_label=labels, bids_database_dir=database)
        (found,), unusable = find_sessions(root, selection)
        assert (found.flair, found.t1w, found.unused) == (root / FLAIR, root / T1W, ())
        assert unusable == []
    assert caplog.text == ""


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_is_no_session_of_its_own(tmp_path: Path, make_dataset: Maker, name: str) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, name)
    sessions, unusable = find_sessions(root, Selection())
    assert [entry.label for entry in (*sessions, *unusable)] == ["sub-01"]


def test_a_database_of_another_program_does_not_widen_the_dataset(
    tmp_path: Path, make_dataset: Maker
) -> None:
    from bids import BIDSLayout

    root = make_dataset(tmp_path / "sub-9" / "ds", T1W, FLAIR, *BESIDE)
    BIDSLayout(root, validate=False, database_path=tmp_path / "db")
    (found,), _ = find_sessions(root, Selection(bids_database_dir=tmp_path / "db"))
    assert (found.subject, found.flair, found.t1w) == ("01", root / FLAIR, root / T1W)


def test_a_database_of_another_dataset_is_refused(tmp_path: Path, make_dataset: Maker) -> None:
    one, other = (make_dataset(tmp_path / name, T1W, FLAIR) for name in ("one", "other"))
    selection = Selection(bids_database_dir=tmp_path / "db")
    find_sessions(one, selection)
    with pytest.raises(UsageError) as raised:
        find_sessions(other, selection)
    assert str(raised.value) == FOREIGN_DATABASE.format(path=tmp_path / "db", root=one)


@pytest.mark.parametrize("kind", ["cut off", "noise", "empty", "a file"])
def test_a_database_that_cannot_be_read_is_named(tmp_path: Path, make_dataset: Maker, kind: str) -> None:
    root, database = make_dataset(tmp_path / "ds", T1W, FLAIR), tmp_path / "db"
    selection = Selection(bids_database_dir=database)
    find_sessions(root, selection)
    index = database / "layout_index.sqlite"
    content = index.read_bytes()
    if kind == "a file":
        rmtree(database)
        database.write_text("db")
    else:
        index.write_bytes({"cut off": content[:5000], "noise": b"x" * 9000, "empty": b""}[kind])
    with pytest.raises(UsageError) as raised:
        find_sessions(root, selection)
    assert str(raised.value).startswith(BAD_DATABASE.partition("(")[0].format(path=database))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("entity", ["acq-1.5mm", "acq-3D.v2", "desc-a.b"])
def test_a_dot_in_a_name_hides_no_scan(tmp_path: Path, make_dataset: Maker, entity: str) -> None:
    t1w, flair = anat(f"{entity}_T1w"), anat(f"{entity}_FLAIR").removesuffix(".gz")
    root = make_dataset(tmp_path / "a.b" / "ds", t1w, flair)
    (found,), unusable = find_sessions(root, Selection())
    assert (found.flair, found.t1w, unusable) == (root / flair, root / t1w, [])


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/sub-02_FLAIR.nii.gz",
        "sub-01/anat/003_sub-01_FLAIR.nii.gz",
        "sub-01/anat/FLAIR.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-2_FLAIR.nii.gz",
    ],
)
def test_a_name_of_somebody_else_is_not_taken_and_is_said(
    tmp_path: Path, make_dataset: Maker, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, name)
    (found,), unusable = find_sessions(root, Selection())
    assert (found.flair, found.unused, unusable) == (root / FLAIR, (), [])
    assert caplog.messages == [MISNAMED.format(path=root / name)]


def test_the_directory_says_the_session_where_the_name_does_not(tmp_path: Path, make_dataset: Maker) -> None:
    files = [f"sub-01/ses-1/anat/sub-01_{suffix}.nii.gz" for suffix in ("T1w", "FLAIR")]
    files += [f"sub-02/anat/sub-02_ses-3_{suffix}.nii.gz" for suffix in ("T1w", "FLAIR")]
    sessions, unusable = find_sessions(make_dataset(tmp_path / "ds", *files), Selection())
    assert [(found.label, found.prefix) for found in sessions] == [
        ("sub-01/ses-1", "sub-01_ses-1"), ("sub-02/ses-3", "sub-02_ses-3"),
    ]  # fmt: skip
    assert unusable == []


@pytest.mark.parametrize(
    "beside", ["._sub-01_ses-1_label-WMH_mask", "sub-02_label-WMH_mask", "sub-01_ses-2_label-WMH_mask"]
)
def test_a_reference_of_somebody_else_is_none(tmp_path: Path, make_dataset: Maker, beside: str) -> None:
    names = [f"sub-01/ses-1/anat/{name}.nii.gz" for name in (beside, "sub-01_space-FLAIR_label-lesion_mask")]
    root = make_dataset(tmp_path / "ref", *names)
    assert find_reference(root, "sub-01", "ses-1") == Reference(root / names[1], "FLAIR")
    (root / names[1]).unlink()
    assert find_reference(root, "sub-01", "ses-1") is None


# ------------------------------------------------------------------ special scans

SPECIAL = [
    "ce-gadolinium", "inv-1", "inv-2_part-mag", "mod-T1w", "desc-preproc", "echo-1", "space-MNI152", "flip-1",
    "ce-gd_rec-norm_run-1", "mt-on", "chunk-1", "acq-2D_label-brain", "0orig",
]  # fmt: skip
PLAIN = ["run-1", "rec-nonorm", "acq-z_rec-z_run-9", "part-mag", "task-rest", "run-100"]


@pytest.mark.parametrize("suffix", ["T1w", "FLAIR"])
@pytest.mark.parametrize("plain", PLAIN)
def test_special_scans_come_last(tmp_path: Path, make_dataset: Maker, suffix: str, plain: str) -> None:
    other = FLAIR if suffix == "T1w" else T1W
    specials = [anat(f"{entities}_{suffix}") for entities in SPECIAL]
    root = make_dataset(tmp_path / "ds", other, anat(f"{plain}_{suffix}"), *specials)
    (found,), _ = find_sessions(root, Selection())
    taken = found.t1w if suffix == "T1w" else found.flair
    assert taken == root / anat(f"{plain}_{suffix}")
    assert set(found.unused) == {root / name for name in specials}
    assert found.warnings == ()


@pytest.mark.parametrize("suffix", ["T1w", "FLAIR"])
@pytest.mark.parametrize("part", ["phase", "imag", "real"])
def test_a_part_that_is_no_magnitude_is_never_taken(
    tmp_path: Path, make_dataset: Maker, suffix: str, part: str
) -> None:
    other = FLAIR if suffix == "T1w" else T1W
    name = anat(f"part-{part}_{suffix}")
    root = make_dataset(tmp_path / "ds", other, name)
    sessions, (entry,) = find_sessions(root, Selection())
    assert (sessions, entry.label) == ([], "sub-01")
    filters = tmp_path / "filters.json"
    filters.write_text(json.dumps({suffix.lower(): {"part": part}}))
    try:
        sessions, _ = find_sessions(root, Selection(bids_filter_file=filters))
    except EmptySelectionError:
        sessions = []
    assert sessions == []


@pytest.mark.parametrize("entities", SPECIAL)
def test_a_special_scan_that_is_taken_all_the_same_is_said(
    tmp_path: Path, make_dataset: Maker, entities: str
) -> None:
    root = make_dataset(tmp_path / "ds", FLAIR, anat(f"{entities}_T1w"))
    (found,), _ = find_sessions(root, Selection())
    (warning,) = found.warnings
    assert warning.code == SPECIAL_SCAN.code
    assert warning.text.startswith("The T1w")
    assert found.t1w.name in warning.text
    both = replace(found, flair=found.t1w)
    assert [entry.text.split()[1] for entry in both.warnings] == ["FLAIR", "T1w"]


def test_a_dry_run_has_the_warning(
    tmp_path: Path, make_dataset: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_dataset(tmp_path / "ds", FLAIR, anat("ce-gd_T1w"))
    assert main([str(root), str(tmp_path / "out"), "participant", "--dry-run"]) == EXIT_OK
    said = SPECIAL_SCAN.format(contrast="T1w", name="sub-01_ce-gd_T1w.nii.gz", parts="ce-gd")
    assert f"  warning   {said.text}\n" in capsys.readouterr().out
