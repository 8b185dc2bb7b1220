"""The command line: forms of options, prefixes, defaults, exit codes, and how little --help loads."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad import __version__
from bids_wmh_uad.cli.parser import build_parser, normalise_argv, parse_args
from bids_wmh_uad.cli.run import main
from bids_wmh_uad.config import (
    LEVELS,
    GroupConfig,
    Method,
    RunConfig,
    Running,
    Selection,
    TrainConfig,
    Training,
)
from bids_wmh_uad.errors import BAD_VALUE, NO_SUCH_DIRECTORY, WORK_INSIDE_INPUT, UnknownLevelError, UsageError

BASE = ["/bids", "/out", "participant"]
LABELS = st.lists(st.text("abcXYZ0123456789", min_size=1, max_size=8), min_size=1, max_size=5, unique=True)


def parse(*options: str) -> RunConfig:
    return parse_args([*BASE, *options])


def test_defaults_are_those_of_the_dataclasses() -> None:
    made = parse()
    assert made.method == Method()
    assert made.selection == Selection()
    assert made.running == Running(work_dir=Path.cwd() / "work")
    assert (made.performance.device, made.performance.omp_nthreads) == ("auto", 1)
    train = parse_args(["/bids", "/out", "train", "--output-model", "/model"])
    assert train.training == Training(output_model=Path("/model"))
    assert made.performance.nprocs >= 1
    assert made.performance.mem_gb > 0


def test_every_setting_has_an_option() -> None:
    options = vars(build_parser().parse_args(BASE))
    for group in (Selection, Method, Running, Training):
        assert {field.name for field in fields(group)} <= set(options)


@pytest.mark.parametrize(
    "option",
    [text for action in build_parser()._actions for text in action.option_strings if "-" in text[2:]],
)
def test_underscores_mean_hyphens(option: str) -> None:
    form = "--" + option[2:].replace("-", "_")
    assert normalise_argv([form, f"{form}=a_b", "a_b"]) == [option, f"{option}=a_b", "a_b"]


def test_a_level_knows_its_own_settings_only() -> None:
    kinds = {
        "participant": (RunConfig, []),
        "group": (GroupConfig, []),
        "train": (TrainConfig, ["--output-model", "/model"]),
    }
    for level, (kind, options) in kinds.items():
        assert type(parse_args(["/bids", "/out", level, *options])) is kind


def test_underscores_reach_the_config() -> None:
    made = parse("--participant_label", "sub-a", "--n_samples=500", "--work_dir", "/some_where")
    assert made == RunConfig(**{**vars(made), "selection": Selection(participant_label=("a",))})
    assert made.method.n_samples == 500
    assert made.running.work_dir == Path("/some_where")


@given(LABELS)
def test_prefixes_and_repetition_of_labels_do_not_matter(labels: list[str]) -> None:
    prefixed = [f"sub-{label}" for label in labels]
    sessions = [f"ses-{label}" for label in labels]
    made = parse("--participant-label", *labels, *prefixed, "--session-label", *sessions, *labels)
    assert made.selection.participant_label == made.selection.session_label == tuple(labels)


def test_a_session_prefix_is_not_a_participant_prefix() -> None:
    assert parse("--participant-label", "ses-1").selection.participant_label == ("ses-1",)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = parse_args(["bids", "out", "group", "--reference", "truth", "-w", "tmp"])
    assert (made.bids_dir, made.output_dir) == (tmp_path / "bids", tmp_path / "out")
    assert (made.group.reference, made.running.work_dir) == (tmp_path / "truth", tmp_path / "tmp")


def test_raw_data_are_safe_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "bids").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "bids")
    with pytest.raises(UsageError) as raised:
        parse_args([str(tmp_path / "alias"), str(tmp_path / "bids" / "out"), "participant"])
    assert str(raised.value) == WORK_INSIDE_INPUT.format(path=tmp_path / "bids" / "out", what="output")


@pytest.mark.parametrize(
    "options",
    [
        ["--accept", "1.5"], ["--accept", "-0.1"], ["--accept", "half"],
        ["--nu", "2"], ["--nu", "x"], ["--gamma", "x"], ["--threshold", "x"], ["--threshold", "tail=x"],
        ["--threshold", "value"], ["--device", "tpu"], ["--paradigm", "none"], ["--random-seed", "99999999999"],
        ["--unknown"], ["--participant-label"], ["--nprocs", "0"], ["--mem-gb", "-1"], ["--epochs", "0"],
    ],
)  # fmt: skip
def test_bad_options_end_with_64_and_one_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, *options]) == 64
    written = capsys.readouterr().err
    assert written.startswith("bids-wmh-uad: error: ")
    assert written.count("\n") == 1


def test_missing_arguments_end_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    assert "bids_dir" in capsys.readouterr().err


def test_an_unknown_level_ends_with_17(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/bids", "/out", "cohort"]) == 17
    expected = BAD_VALUE.format(option="analysis level", value="cohort", expected=f"choose from {LEVELS}")
    assert expected in capsys.readouterr().err
    with pytest.raises(UnknownLevelError):
        parse_args(["/bids", "/out", "cohort"])


def test_a_missing_dataset_ends_with_66(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), str(tmp_path / "out"), "participant", "--dry-run"]) == 66
    assert NO_SUCH_DIRECTORY.format(path=tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_needs_a_place_for_the_model() -> None:
    with pytest.raises(UsageError, match="--output-model"):
        parse_args(["/bids", "/out", "train"])
    assert parse_args(["/bids", "/out", "train", "--output-model", "/m"]).training.output_model == Path("/m")


def test_toml_of_a_command_line_round_trips() -> None:
    made = parse("--participant-label", "01", "--gamma", "0.5", "--bids-filter-file", "/f.json", "-vv")
    read = tomllib.loads(made.to_toml())
    assert read["selection"]["participant_label"] == ["01"]
    assert read["selection"]["bids_filter_file"] == "/f.json"
    assert read["method"]["gamma"] == 0.5
    assert read["running"]["verbose"] == 2
    assert read["run_uuid"] == made.run_uuid


def test_two_runs_never_share_an_identity() -> None:
    assert parse().run_uuid != parse().run_uuid


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    code = f"""
import sys
from bids_wmh_uad.cli.run import main
try:
    main([{option!r}])
except SystemExit as end:
    heavy = {{'torch', 'nipype', 'numpy', 'niworkflows', 'bids', 'nibabel', 'scipy'}} & set(sys.modules)
    sys.exit(f'loaded {{heavy}}' if heavy else end.code)
sys.exit('did not end')
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ("usage: bids-wmh-uad" if option == "--help" else __version__) in ran.stdout


def test_a_threshold_at_group_level_is_for_new_masks() -> None:
    made = parse_args(["bids", "out", "group", "--threshold", "tail=2.5", "--resample-reference"])
    assert (made.group.threshold, made.selection.resample_reference) == ("tail=2.5", True)
    assert parse_args(["bids", "out", "group"]).group.threshold is None
    participant = parse_args(["bids", "out", "participant", "--threshold", "gm=1.5"])
    assert participant.method.threshold == "gm=1.5"
    assert parse_args(["bids", "out", "participant"]).method.threshold == Method().threshold
    with pytest.raises(UsageError, match="--threshold"):
        parse_args(["bids", "out", "group", "--threshold", "best"])
