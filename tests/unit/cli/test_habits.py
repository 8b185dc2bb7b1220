"""What people bring from fMRIPrep: its names of options, its units, its config file; and no half of a name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bids_wmh_uad.cli import parser
from bids_wmh_uad.cli.parser import build_parser, parse_args
from bids_wmh_uad.cli.run import main
from bids_wmh_uad.config import DEBUG_MODES, RunConfig, Running
from bids_wmh_uad.errors import (
    BAD_CONFIG_FILE,
    BAD_VALUE,
    BOTH_GIVEN,
    KNOWN_SPACES,
    CannotCreateError,
    UsageError,
)
from bids_wmh_uad.files import write_text
from bids_wmh_uad.reports.methods import METHODS_FILES

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = ["/bids", "/out", "participant"]
LONG = [text for action in build_parser()._actions for text in action.option_strings if text.startswith("--")]


def parse(*options: str) -> RunConfig:
    return parse_args([*BASE, *options])


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("option", LONG)
def test_half_a_name_is_none(option: str) -> None:
    for end in range(4, len(option)):
        if option[:end] not in LONG:
            for half in (option[:end], option[:end].replace("-", "_").replace("__", "--", 1)):
                with pytest.raises(UsageError, match="unrecognized arguments"):
                    parse(half, "1")


@pytest.mark.parametrize(
    ("option", "gib"),
    [
        ("16000", 16),
        ("8G", 8),
        ("8GB", 8),
        ("8GiB", 8),
        ("8000M", 8),
        ("8000mb", 8),
        ("1.5T", 1500),
        (" 500000K", 0.5),
    ],
)
@pytest.mark.parametrize("name", ["--mem", "--mem-mb", "--mem_mb"])
def test_memory_is_in_megabytes_or_has_a_unit(name: str, option: str, gib: float) -> None:
    assert parse(name, option).performance.mem_gb == pytest.approx(gib)


@pytest.mark.parametrize("value", ["", "much", "8X", "8 GBs", "-5", "1e3", "nan", "0"])
def test_no_memory_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        parse("--mem", value)


def test_two_names_of_one_thing_must_agree() -> None:
    assert parse("--mem", "8G", "--mem-gb", "8").performance.mem_gb == 8
    with pytest.raises(UsageError) as raised:
        parse("--mem", "16000", "--mem-gb", "8")
    assert str(raised.value) == BOTH_GIVEN.format(first="--mem", second="--mem-gb")


@pytest.mark.parametrize("name", ["--n-cpus", "--n_cpus", "--nthreads"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (8, 1)),
        (["--omp-nthreads", "4"], (2, 4)),
        (["--omp-nthreads", "3"], (2, 3)),
        (["--nprocs", "2"], (2, 1)),
    ],
)
def test_threads_in_all_are_shared_out(name: str, options: list[str], expected: tuple[int, int]) -> None:
    made = parse(name, "8", *options).performance
    assert (made.nprocs, made.omp_nthreads) == expected


@pytest.mark.parametrize(
    "options", [["0"], ["-1"], ["2", "--omp-nthreads", "4"], ["4", "--nprocs", "3", "--omp-nthreads", "2"]]
)
def test_threads_that_contradict_each_other_are_refused(options: list[str]) -> None:
    with pytest.raises(UsageError):
        parse("--n-cpus", *options)


def test_other_names() -> None:
    assert parse("--session-id", "ses-1", "2").selection.session_label == ("1", "2")
    assert parse("--notrack").running == parse().running
    assert parse("--debug", "all").running.debug == DEBUG_MODES
    assert parse("--debug", "pdb").running.debug == ("pdb",)
    with pytest.raises(UsageError):
        parse("--debug", "fieldmaps")


@pytest.mark.parametrize("name", ["--output-spaces", "--output_spaces"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["T1w"], ("FLAIR", "T1w")),
        (["FLAIR"], ("FLAIR",)),
        (["MNI152NLin2009aSym", "T1w", "T1w"], ("FLAIR", "T1w", "MNI152NLin2009aSym")),
    ],
)
def test_spaces_are_added_to_the_flairs(name: str, given: list[str], expected: tuple[str, ...]) -> None:
    assert parse(name, *given).running.output_spaces == expected
    assert parse().running.output_spaces == ("FLAIR",)


@pytest.mark.parametrize("space", ["MNI152NLin2009cAsym", "MNI152NLin2009aSym:res-2", "t1w", "anat", ""])
def test_another_space_is_refused_with_the_known_ones(space: str) -> None:
    expected = KNOWN_SPACES.format(known="FLAIR, T1w, MNI152NLin2009aSym")
    with pytest.raises(UsageError) as raised:
        parse("--output-spaces", "T1w", space)
    assert str(raised.value) == BAD_VALUE.format(option="--output-spaces", value=space, expected=expected)
    with pytest.raises(UsageError):
        Running(output_spaces=(space,))


# ------------------------------------------------------------------ the config file

MANY = [
    "--participant-label", "sub-01", "02", "--session-id", "1", "--bids-filter-file", "/f.json", "-d", "/one", "x=/two",
    "--score", "brightness", "--threshold", "tail=2.5", "--accept", "0.3", "--min-lesion-volume", "7", "--gamma", "0.5",
    "--random-seed", "3", "--device", "cpu", "--n-cpus", "4", "--omp-nthreads", "2", "--mem", "8G", "-w", "/w", "--clean-workdir",
    "--md-only-boilerplate", "--output-spaces", "T1w", "MNI152NLin2009aSym", "--write-graph", "--debug", "nipype", "--stop-on-first-crash", "-vv", "--notrack",
]  # fmt: skip
LEVELS = {
    "participant": [*BASE, *MANY],
    "defaults": BASE,
    "group": ["/bids", "/out", "group", "--reference", "/masks", "--resample-reference", "--threshold", "value=3"],
    "group as before": ["/bids", "/out", "group"],
    "train": ["/bids", "/out", "train", "--output-model", "/m", "--epochs", "3", "--paradigm", "voxel", "--focus", "0"],
    "train both": ["/bids", "/out", "train", "--output-model", "/m"],
}  # fmt: skip


def settings(config: RunConfig) -> RunConfig:
    """All but the run's own name."""
    return replace(config, run_uuid="")


def saved(tmp_path: Path, argv: list[str]) -> Path:
    path = tmp_path / "config.toml"
    write_text(path, parse_args(argv).to_toml())
    return path


@pytest.mark.parametrize("level", LEVELS)
def test_a_runs_own_file_makes_the_same_run(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parser, "available_memory_gb", lambda: 8.0)  # the machine's changes all the time
    path = saved(tmp_path, LEVELS[level])
    again = parse_args(["--config-file", str(path)])
    assert settings(again) == settings(parse_args(LEVELS[level]))
    assert again.run_uuid != ""
    assert settings(parse_args([*LEVELS[level][:3], f"--config_file={path}"])) == settings(again)


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = saved(tmp_path, LEVELS["participant"])
    made = parse_args(
        ["--config-file", str(path), "/other", "/out2", "participant", "--accept", "0.5", "--mem", "4G"]
    )
    assert (made.bids_dir, made.output_dir) == (Path("/other"), Path("/out2"))
    assert (made.method.accept, made.performance.mem_gb) == (0.5, 4)
    assert made.method.threshold == "tail=2.5"


BAD = {
    "analysis_level = 'x'": "analysis_level",
    "[method]\nnu = 'much'": "method.nu",
    "[method]\nnu = true": "method.nu",
    "[method]\nnu = 7.0": "--nu",
    "[method]\nscore = 'best'": "method.score",
    "[method]\nnew = 1": "method.new: no such setting",
    "[performance]\nnprocs = 1.5": "performance.nprocs",
    "[performance]\nnprocs = 0": "--nprocs",
    "[selection]\nparticipant_label = 'sub-01'": "selection.participant_label: expected a list",
    "[running]\nclean_workdir = 1": "running.clean_workdir",
    "[running]\noutput_spaces = ['MNI']": "running.output_spaces: --output-spaces",
    "[detection]\nedge = 9.0": "detection.edge",
    "[what]": "what: no such setting",
    "method = 3": "method: expected a table",
    "[method": "",
    "\x00": "",
}


@pytest.mark.parametrize("content", BAD)
def test_a_bad_file_is_named_with_the_key(content: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as raised:
        parse_args(["/bids", "/out", "participant", "--config-file", str(path)])
    assert BAD_CONFIG_FILE.split("(")[0].format(path=path) in str(raised.value)
    assert BAD[content] in str(raised.value)


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: None, lambda path: path.write_bytes(b"\xff\xfe\x00")]
)
def test_what_is_no_text_file_is_named(make: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    make(path)
    with pytest.raises(UsageError, match=re.escape(str(path))):
        parse_args([*BASE, "--config-file", str(path)])


def test_places_that_nobody_names_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[method]\naccept = 0.3")
    with pytest.raises(UsageError, match="bids_dir, output_dir, analysis_level"):
        parse_args(["--config-file", str(path)])


# ------------------------------------------------------------------ what they do


@pytest.mark.usefixtures("own_directory")
@pytest.mark.parametrize(
    ("options", "forms"),
    [([], set(METHODS_FILES)), (["--md-only-boilerplate"], {"CITATION.md", "CITATION.bib"})],
)
def test_the_methods_text_as_markdown_only(
    options: list[str], forms: set[str], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    root = make_dataset(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    out = tmp_path / "out"
    assert (
        main([str(root), str(out), "participant", "--score", "brightness", "--boilerplate-only", *options])
        == 0
    )
    assert {path.name for path in out.glob("CITATION.*")} == forms


@pytest.mark.usefixtures("own_directory")
def test_the_graph_is_written_where_asked(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    root = make_dataset(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    out = tmp_path / "out"
    main(
        [str(root), str(out), "participant", "--score", "brightness", "--write-graph", "--debug", "nipype"]
    )  # it fails
    (graph,) = out.glob("logs/*/graph.dot")
    assert "publish" in graph.read_text()
    (config,) = out.glob("logs/*/config.toml")
    assert parse_args(["--config-file", str(config)]).running.write_graph


def test_the_work_directory_is_in_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse().running.work_dir == tmp_path / "work"


def test_a_start_inside_the_dataset_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_dataset: Callable[..., Path]
) -> None:
    root = make_dataset(tmp_path / "ds", "sub-01/anat/sub-01_FLAIR.nii.gz")
    monkeypatch.chdir(root / "sub-01")
    with pytest.raises(UsageError, match=r"work directory lies inside the BIDS dataset.*--work-dir"):
        parse_args([str(root), str(tmp_path / "out"), "participant"])
    assert parse_args([str(root), str(tmp_path / "out"), "participant", "-w", str(tmp_path / "w")])


def test_a_current_directory_that_may_not_be_written_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_dataset: Callable[..., Path],
) -> None:
    root = make_dataset(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz")
    monkeypatch.chdir("/proc")  # where nobody makes directories, root neither
    assert main([str(root), str(tmp_path / "out"), "participant"]) == CannotCreateError.exit_code
    assert "/proc/work: cannot be created" in capsys.readouterr().err
