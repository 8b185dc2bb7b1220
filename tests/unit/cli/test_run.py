"""``main``: dry runs, and runs that find nothing they can use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.cli.run import _prepare as prepare
from bids_wmh_uad.cli.run import main
from bids_wmh_uad.errors import (
    EXIT_OK,
    EXIT_SESSION_FAILED,
    MISSING_T1W,
    OPEN_DIRECTORY,
    BusyError,
    CannotCreateError,
    MissingInputError,
)
from bids_wmh_uad.locks import Locks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Maker = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("own_directory")
T1W, FLAIR = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"


def test_a_dry_run_names_every_file_and_writes_nothing(
    tmp_path: Path, make_dataset: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "sub-01/anat/sub-01_run-2_FLAIR.nii.gz"
    root = make_dataset(tmp_path / "ds", T1W, FLAIR, other)
    arguments = [str(root), str(tmp_path / "out"), "participant", "--dry-run"]
    assert main(arguments) == EXIT_OK
    said = capsys.readouterr().out
    assert all(str(root / name) in said for name in (T1W, FLAIR, other))
    assert said.endswith("1 sessions would be processed, 0 cannot be.\n")
    (root / T1W).unlink()
    assert main(arguments) == EXIT_SESSION_FAILED
    assert MISSING_T1W.format(where="sub-01", flair=root / FLAIR) in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_the_group_level_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "out" / "sub-01" / "anat" / "sub-01_desc-wmh_summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text('{"participant_id": "sub-01", "session_id": "n/a", "status": "done"}')
    summary.with_name("sub-01_desc-failed_summary.json").write_text("{}")  # no row
    assert main([str(tmp_path / "absent"), str(tmp_path / "out"), "group", "--dry-run"]) == EXIT_OK
    assert capsys.readouterr().out == f"{summary}\n1 sessions would be collected.\n"
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2


def test_the_methods_text_alone_needs_a_usable_session(
    tmp_path: Path, make_dataset: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_dataset(tmp_path / "ds", FLAIR)
    out = tmp_path / "out"
    assert main([str(root), str(out), "participant", "--boilerplate-only"]) == MissingInputError.exit_code
    assert MISSING_T1W.format(where="sub-01", flair=root / FLAIR) in capsys.readouterr().err
    assert not list(out.glob("sub-*"))
    root = make_dataset(tmp_path / "whole", T1W, FLAIR)
    assert main([str(root), str(out), "participant", "--boilerplate-only"]) == EXIT_OK
    assert "Pinon" in (out / "CITATION.md").read_text()
    assert "@article{pinon,\n  author = {Pinon, N." in (out / "CITATION.bib").read_text()
    argv = [str(root), str(out), "participant", "--boilerplate-only", "--score", "brightness"]
    assert main([*argv, "--model", str(tmp_path / "none")]) == EXIT_OK  # no model is read
    assert "Pinon" not in (out / "CITATION.md").read_text() + (out / "CITATION.bib").read_text()


@pytest.mark.parametrize(
    ("level", "lock"),
    [("group", "out/logs/group.lock"), ("train", "out/logs/train.lock"), ("train", "model/.lock")],
)
def test_a_level_that_another_process_works_on_is_left_to_it(
    tmp_path: Path, make_dataset: Maker, capsys: pytest.CaptureFixture[str], level: str, lock: str
) -> None:
    root = make_dataset(tmp_path / "ds", T1W, FLAIR)
    options = ["--output-model", str(tmp_path / "model")] if level == "train" else []
    with Locks() as locks:
        locks.take(tmp_path / lock, "it")
        before = sorted((tmp_path / lock).parent.iterdir())
        assert main([str(root), str(tmp_path / "out"), level, *options]) == BusyError.exit_code
        assert "another process works on it" in capsys.readouterr().err
        assert [path for path in sorted((tmp_path / lock).parent.iterdir()) if path.is_file()] == before
    assert main([str(root), str(tmp_path / "out"), level, *options]) == MissingInputError.exit_code
    assert not list(tmp_path.rglob("*.lock"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("level", ["participant", "group", "train"])
def test_a_work_directory_open_to_others_is_refused_before_anything_is_read(
    tmp_path: Path, make_dataset: Maker, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    root, work = make_dataset(tmp_path / "ds", T1W, FLAIR), tmp_path / "out" / "work"
    work.mkdir(parents=True)
    work.chmod(0o777)
    options = ["--output-model", str(tmp_path / "model")] if level == "train" else []
    options += ["-w", str(work)]
    assert main([str(root), str(tmp_path / "out"), level, *options]) == CannotCreateError.exit_code
    assert OPEN_DIRECTORY.format(path=work, mode="777") in capsys.readouterr().err
    assert list((tmp_path / "out").rglob("*")) == [work]


def test_of_several_training_processes_only_the_first_has_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_args(["/none", str(tmp_path / "out"), "train", "--output-model", str(tmp_path / "model")])
    with monkeypatch.context() as patch:
        for name in ("NO_ET", "OMP_NUM_THREADS", "MPLCONFIGDIR", "NIPYPE_CONFIG_DIR", "TEMPLATEFLOW_HOME"):
            patch.setenv(name, os.environ.get(name, ""))  # so that they come back
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "1")
        prepare(config)
        assert not config.log_dir.parent.exists()
        patch.setenv("RANK", "0")
        prepare(config)
        assert (config.log_dir / "config.toml").is_file()
