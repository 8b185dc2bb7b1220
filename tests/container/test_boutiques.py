"""boutiques.json, checked and launched by Boutiques itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from container.fixtures import ENVIRONMENT, ROOT, differences, run

DESCRIPTOR = ROOT / "boutiques.json"


def launch(tools: Path, invocation: dict[str, object], directory: Path, *options: str | Path) -> str:
    """Run the descriptor in a directory, as docs/boutiques.md says."""
    path = directory / "invocation.json"
    path.write_text(json.dumps(invocation))
    ran = run(tools / "bosh", "exec", "launch", "--skip-data-collection", *options, DESCRIPTOR, path, cwd=directory)
    return ran.stdout


@pytest.fixture(scope="module")
def directory(share: Path) -> Path:
    path = share / "boutiques"
    path.mkdir()
    return path


@pytest.mark.parametrize("options", [(), ("--bids",)], ids=["schema", "bids"])
def test_it_is_valid(tools: Path, options: tuple[str, ...]) -> None:
    assert "OK" in run(tools / "bosh", "validate", *options, DESCRIPTOR).stdout


def test_an_invocation_becomes_the_command_line(tools: Path, directory: Path) -> None:
    invocation = {
        "bids_dir": "/data", "output_dir": "/out", "analysis_level": "participant",
        "participant_label": ["01", "02"], "nprocs": 2, "clean_workdir": True, "threshold": "tail=4",
    }  # fmt: skip
    path = directory / "simulated.json"
    path.write_text(json.dumps(invocation))
    said = run(tools / "bosh", "exec", "simulate", "--skip-data-collection", "-i", path, DESCRIPTOR).stdout
    words = said.replace("'", " ").split()
    for expected in ("mkdir -p /out;", "bids-wmh-uad /data /out participant --participant-label 01 02", "--nprocs 2",
                     "--clean-workdir", "--threshold tail=4"):  # fmt: skip
        assert expected in " ".join(words)


def test_it_runs_a_participant_without_a_container(
    tools: Path, directory: Path, bids_dir: Path, native: Path
) -> None:
    out = directory / "out"
    invocation = {"bids_dir": str(bids_dir), "output_dir": str(out), "analysis_level": "participant",
                  "participant_label": ["01"]}  # fmt: skip
    launch(tools, invocation, directory, "--no-container")
    assert differences(native, out, "01") == []


def test_it_runs_the_group_level_in_the_image(tools: Path, image: str, directory: Path, bids_dir: Path, native: Path) -> None:
    out = directory / "in-image"
    run("cp", "-r", native / "sub-01", native / "dataset_description.json", out.parent)
    out.mkdir()
    for name in ("sub-01", "dataset_description.json"):
        (out.parent / name).rename(out / name)
    invocation = {"bids_dir": str(bids_dir), "output_dir_existing": str(out), "analysis_level": "group"}
    launch(tools, invocation, directory, "--no-pull", "-u", "-v", f"{bids_dir}:{bids_dir}:ro", "-v", f"{out}:{out}")
    assert (out / "group_wmh.tsv").read_text().splitlines()[1].startswith("sub-01\tn/a\tdone")


def test_the_environment_finds_our_docker() -> None:
    """Boutiques calls ``docker``: in these tests that is podman, and no daemon of the machine."""
    first = next(Path(part) / "docker" for part in ENVIRONMENT["PATH"].split(os.pathsep) if (Path(part) / "docker").exists())
    assert first.resolve() == ROOT / "tests" / "container" / "docker"
