"""The output dataset: whole files or none, nothing touched twice, and what makes a session finished."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad import files
from bids_wmh_uad.bids import derivatives, tables
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.sidecars import sidecar_one_class, sidecars
from bids_wmh_uad.config import Method
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.parameters import SCORES
from bids_wmh_uad.errors import CANNOT_CREATE, CannotCreateError, StorageError, WmhUadError
from bids_wmh_uad.models import load_decision

if TYPE_CHECKING:
    from collections.abc import Callable

SESSION = Session(
    "01", "1", Path("/ds/sub-01/ses-1/anat/sub-01_ses-1_run-2_FLAIR.nii.gz"), Path("/ds/t1w.nii.gz")
)
DIGEST = "0" * 64


def stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


# -------------------------------------------------------------------- files


@given(content=st.binary(max_size=2000))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("write") / "new" / "file"
    assert files.write_atomically(path, content)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"abc")
    os.utime(path, ns=(1, 1))
    before = stamp(path)
    assert not files.write_atomically(path, b"abc")
    assert stamp(path) == before
    assert files.write_atomically(path, b"abd")  # same length
    assert stamp(path) != before


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, StorageError, 74),
        (errno.EDQUOT, StorageError, 74),
        (errno.EACCES, CannotCreateError, 73),
    ],
)
def test_a_failed_write_leaves_the_old_file_whole_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[WmhUadError], code: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(number, "it broke")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(kind) as raised:
        files.write_atomically(path, b"new")
    assert str(raised.value) == CANNOT_CREATE.format(path=path, reason="it broke")
    assert raised.value.exit_code == code
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "sub-01").write_text("")
    with pytest.raises(CannotCreateError, match="sub-01/anat"):
        files.write_atomically(tmp_path / "sub-01" / "anat" / "file", b"")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_have_the_permissions_the_umask_asks_for(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        files.write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_json_does_not_depend_on_the_order_of_keys() -> None:
    assert files.dump_json({"a": 1, "b": [2]}) == files.dump_json({"b": [2], "a": 1})
    assert json.loads(files.dump_json({"a": 1})) == {"a": 1}


# ------------------------------------------------------------------- tables


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_six_digits(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    path = tmp_path_factory.mktemp("table") / "t.tsv"
    tables.write_table(path, [{"a": value}], {"a": {}})
    assert float(path.read_text().splitlines()[1]) == pytest.approx(value, rel=1e-5, abs=1e-300)


def test_a_table_has_its_columns_and_n_a_where_a_value_is_missing(tmp_path: Path) -> None:
    columns: dict[str, dict[str, Any]] = {"b": {"Description": "x"}, "a": {"Units": "mL"}}
    rows = [{"a": None, "b": math.nan}, {"b": ""}, {"a": 0, "b": 0.0, "c": 9}, {"a": "x\ty\nz", "b": False}]
    tables.write_table(tmp_path / "t.tsv", rows, columns)
    assert (tmp_path / "t.tsv").read_text() == "b\ta\nn/a\tn/a\nn/a\tn/a\n0\t0\nFalse\tx y z\n"
    assert json.loads((tmp_path / "t.json").read_text()) == columns


def test_an_empty_table_still_has_its_header(tmp_path: Path) -> None:
    tables.write_table(tmp_path / "t.tsv", [], {"a": {}, "b": {}})
    assert (tmp_path / "t.tsv").read_text() == "a\tb\n"


# -------------------------------------------------------------------- names


def test_every_output_has_the_flairs_entities_and_its_place() -> None:
    paths = {name: derivatives.output_path(Path("/out"), SESSION, name) for name in derivatives.OUTPUTS}
    assert {path.parent for path in paths.values()} == {Path("/out/sub-01/ses-1/anat")}
    start = "sub-01_ses-1_run-2_"
    assert {name: path.name for name, path in paths.items()} == {
        "flair": f"{start}space-FLAIR_desc-preproc_FLAIR.nii.gz",
        "t1w": f"{start}space-FLAIR_desc-preproc_T1w.nii.gz",
        "brain": f"{start}space-FLAIR_desc-brain_mask.nii.gz",
        "anomaly": f"{start}space-FLAIR_desc-anomaly_map.nii.gz",
        "evidence": f"{start}space-FLAIR_desc-evidence_map.nii.gz",
        "brightness": f"{start}space-FLAIR_desc-brightness_map.nii.gz",
        "probability": f"{start}space-FLAIR_label-WMH_probseg.nii.gz",
        "mask": f"{start}space-FLAIR_label-WMH_mask.nii.gz",
        "lesions": f"{start}space-FLAIR_desc-lesions_dseg.nii.gz",
        "rejected": f"{start}space-FLAIR_desc-rejected_dseg.nii.gz",
        "regions": f"{start}space-FLAIR_desc-regions_dseg.nii.gz",
        "lobes": f"{start}space-FLAIR_desc-lobes_dseg.nii.gz",
        "table": f"{start}space-FLAIR_desc-lesions_dseg.tsv",
        "rejected_table": f"{start}space-FLAIR_desc-rejected_dseg.tsv",
        "regions_table": f"{start}space-FLAIR_desc-regions_dseg.tsv",
        "lobes_table": f"{start}space-FLAIR_desc-lobes_dseg.tsv",
        "t1w_to_flair": f"{start}from-T1w_to-FLAIR_mode-image_xfm.txt",
        "t1w_to_template": f"{start}from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt",
        "flair_to_template": f"{start}from-FLAIR_to-MNI152NLin2009aSym_mode-image_xfm.txt",
        "summary": f"{start}desc-wmh_summary.json",
    }


def test_uris_point_to_the_raw_data_and_to_the_outputs() -> None:
    assert derivatives.raw_uri(SESSION.flair, Path("/ds")) == f"bids:raw:{SESSION.flair.relative_to('/ds')}"
    uri = derivatives.derivative_uri(SESSION, "mask")
    assert uri == f"bids::{derivatives.output_path(Path('/out'), SESSION, 'mask').relative_to('/out')}"


@pytest.mark.parametrize("session", [None, "1"])
def test_a_failure_is_not_taken_for_a_result(session: str | None) -> None:
    failed = derivatives.failure_path(Path("/out"), "01", session)
    done = derivatives.output_path(Path("/out"), replace(SESSION, session=session), "summary")
    assert failed.parent == done.parent
    assert failed.name.endswith("_summary.json")  # what .bidsignore and the group level look for
    assert not failed.name.endswith(derivatives.OUTPUTS["summary"])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.txt"])
def test_sidecars_lie_beside(name: str) -> None:
    assert derivatives.sidecar_path(Path("/x") / name) == Path("/x/a.json")


def test_the_description_links_the_raw_data(tmp_path: Path) -> None:
    derivatives.write_dataset_files(tmp_path, Path("/data/bids"))
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"raw": "file:///data/bids"}
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "bids-wmh-uad"
    assert (tmp_path / ".bidsignore").read_text().splitlines() == list(derivatives.BIDSIGNORE)


@pytest.mark.parametrize(
    ("known", "authors"),
    [(["Ada", "Bea"], ["Ada", "Bea"]), (["Ada"], ["Ada"]), ([], None), ("Ada", None), (None, None)],
)
def test_the_authors_are_the_raw_datasets(tmp_path: Path, known: Any, authors: Any) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "x", "Authors": known}))
    derivatives.write_dataset_files(out, raw)
    assert json.loads((out / "dataset_description.json").read_text()).get("Authors") == authors


@pytest.mark.parametrize("own", ["README", "README.md", "README.rst", "README.txt", None])
def test_a_readme_of_ones_own_stays(tmp_path: Path, own: str | None) -> None:
    if own is not None:
        (tmp_path / own).write_text("mine")
    derivatives.write_dataset_files(tmp_path, None)
    (readme,) = tmp_path.glob("README*")
    assert readme.name == (own or "README.md")
    assert readme.read_text() == ("mine" if own else derivatives.README)


# ----------------------------------------------------------------- finished


@pytest.fixture
def finished(tmp_path: Path, make_dataset: Callable[..., Path]) -> tuple[Path, Session]:
    root = make_dataset(tmp_path / "ds", "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz")
    anat = root / "sub-01" / "anat"
    session = Session("01", None, anat / "sub-01_FLAIR.nii.gz", anat / "sub-01_T1w.nii.gz")
    for name in derivatives.OUTPUTS:
        path = derivatives.output_path(tmp_path / "out", session, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        if name not in ("table", "rejected_table", "summary"):
            derivatives.sidecar_path(path).write_text("{}")
    write_summary(tmp_path / "out", session)
    return tmp_path / "out", session


def write_summary(out: Path, session: Session) -> None:
    summary = {"signature": derivatives.signature(session, Method(), DIGEST)}
    derivatives.output_path(out, session, "summary").write_bytes(files.dump_json(summary))


def test_a_whole_session_is_finished(finished: tuple[Path, Session]) -> None:
    assert derivatives.is_finished(*finished, Method(), DIGEST)


@pytest.mark.parametrize("output", derivatives.OUTPUTS)
def test_a_session_without_one_of_its_outputs_is_not_finished(
    finished: tuple[Path, Session], output: str
) -> None:
    derivatives.output_path(*finished, output).unlink()
    assert not derivatives.is_finished(*finished, Method(), DIGEST)


def test_a_session_without_a_sidecar_is_not_finished(finished: tuple[Path, Session]) -> None:
    derivatives.sidecar_path(derivatives.output_path(*finished, "mask")).unlink()
    assert not derivatives.is_finished(*finished, Method(), DIGEST)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"signature": "other"}'])
def test_half_a_summary_is_no_result(finished: tuple[Path, Session], content: str) -> None:
    derivatives.output_path(*finished, "summary").write_text(content)
    assert not derivatives.is_finished(*finished, Method(), DIGEST)


def test_another_scan_method_model_or_version_is_another_result(
    finished: tuple[Path, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, session = finished
    assert not derivatives.is_finished(out, session, Method(nu=0.04), DIGEST)
    assert not derivatives.is_finished(out, session, Method(accept=0.4), DIGEST)
    assert not derivatives.is_finished(out, session, Method(), "1" * 64)
    with monkeypatch.context() as patch:
        patch.setattr(derivatives, "__version__", "another")
        assert not derivatives.is_finished(out, session, Method(), DIGEST)
    assert derivatives.is_finished(out, session, Method(), DIGEST)
    for scan in (session.flair, session.t1w):
        write_summary(out, session)
        scan.write_bytes(scan.read_bytes() + b"x")
        assert not derivatives.is_finished(out, session, Method(), DIGEST)


def test_only_the_content_of_the_scans_counts(finished: tuple[Path, Session]) -> None:
    out, session = finished
    os.utime(session.flair, ns=(1, 1))
    renamed = session.t1w.rename(session.t1w.with_name("renamed.nii.gz"))
    assert derivatives.is_finished(out, replace(session, t1w=renamed), Method(), DIGEST)
    exchanged = replace(session, t1w=session.flair, flair=renamed)
    same = replace(session, t1w=renamed)
    renamed.write_bytes(b"other")
    assert derivatives.signature(exchanged, Method(), DIGEST) != derivatives.signature(same, Method(), DIGEST)


def test_a_scan_that_cannot_be_read_is_not_finished(finished: tuple[Path, Session]) -> None:
    out, session = finished
    session.flair.unlink()
    assert not derivatives.is_finished(out, session, Method(), DIGEST)


# ------------------------------------------------------------------ publish


def test_publish_compresses_images_without_time_or_name(tmp_path: Path) -> None:
    content = bytes(range(256)) * 50
    staged = tmp_path / "staging" / "sub-01" / "anat" / "sub-01_mask.nii"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(content)
    (written,) = derivatives.publish(tmp_path / "staging", tmp_path / "out")
    assert written.name == "sub-01_mask.nii.gz"
    compressed = (tmp_path / "out" / written).read_bytes()
    assert gzip.decompress(compressed) == content
    assert compressed[3:8] == bytes(5)  # no flags (no name), no modification time


def test_publish_writes_the_summary_last_and_only_what_is_not_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["sub-01/anat/a_desc-wmh_summary.json", "sub-01/anat/b_mask.nii.gz", "sub-01/figures/z.svg"]
    for name in names:
        files.write_atomically(tmp_path / "staging" / name, name.encode())
    order: list[str] = []
    replace_file = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace_file(a, b)))
    out = tmp_path / "out"
    assert [str(path) for path in derivatives.publish(tmp_path / "staging", out)] == [
        names[1],
        names[2],
        names[0],
    ]
    assert order[-1] == "a_desc-wmh_summary.json"
    before = {name: stamp(out / name) for name in names}
    (out / names[1]).unlink()
    assert [str(path) for path in derivatives.publish(tmp_path / "staging", out)] == [names[1]]
    assert {name: stamp(out / name) for name in (names[0], names[2])} == {
        name: before[name] for name in (names[0], names[2])
    }
    assert all((out / name).read_text() == name for name in names)


def test_the_anomaly_maps_sidecar_names_a_model_only_if_the_score_uses_one(tmp_path: Path) -> None:
    session = Session("1", None, tmp_path / "sub-1_FLAIR.nii.gz", tmp_path / "sub-1_T1w.nii.gz")
    contrasts: dict[str, dict[str, Any]] = {"flair": {}, "t1w": {}}
    for score in SCORES:
        method = Method(score=score)
        said = sidecars(session, tmp_path, method, "7", sidecar_one_class(method), contrasts, {}, "cpu")
        assert said["anomaly"]["Score"] == said["anomaly"]["Parameters"]["score"] == score
        named = {"Model", "OneClassSVM"} & said["anomaly"].keys()
        assert len(named) == (0 if score == "brightness" else 2)
        assert said["evidence"].keys() & {"Model", "OneClassSVM"} == named


@pytest.mark.parametrize("threshold", ["tail=2", "gm"])
@pytest.mark.parametrize("score", SCORES)
def test_the_evidences_sidecar_has_the_decision_whatever_the_rule(
    tmp_path: Path, score: str, threshold: str
) -> None:
    session = Session("1", None, tmp_path / "sub-1_FLAIR.nii.gz", tmp_path / "sub-1_T1w.nii.gz")
    contrasts: dict[str, dict[str, Any]] = {"flair": {}, "t1w": {}}
    method = Method(score=score, threshold=threshold)
    said = sidecars(session, tmp_path, method, "7", sidecar_one_class(method), contrasts, {}, "cpu")
    used = LesionDecision() if score == "brightness" else load_decision("default")
    recorded = json.loads(files.dump_json(said["evidence"]["LesionDecision"]))
    assert LesionDecision.of(recorded) == used
    uri = derivatives.derivative_uri(session, "regions")
    assert uri in said["rejected"]["Sources"]
