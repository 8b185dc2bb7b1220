"""boutiques.json, checked and launched by Boutiques itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from container.fixtures import ENVIRONMENT, ROOT, differences, documented, run

DESCRIPTOR = ROOT / "boutiques.json"


@pytest.fixture(scope="module")
def directory(share: Path, tools: Path) -> Path:
    """Where the commands of docs/boutiques.md are run."""
    path = share / "boutiques"
    path.mkdir()
    (path / "boutiques.json").symlink_to(DESCRIPTOR)
    return path


def test_it_is_valid(directory: Path) -> None:
    assert "BIDS validation OK" in run(*documented("boutiques.md", "bosh validate"), cwd=directory).stdout


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


def test_it_runs_a_participant_without_a_container(directory: Path, bids_dir: Path, native: Path) -> None:
    out = directory / "out"
    text = re.search(
        r"^```json\n(.*?)^```", (ROOT / "docs/boutiques.md").read_text(), re.MULTILINE | re.DOTALL
    )[1]
    text = text.replace("/path/to/bids", str(bids_dir)).replace("/path/to/out", str(out))
    (directory / "invocation.json").write_text(text)
    run(*documented("boutiques.md", "--no-container"), cwd=directory)
    assert differences(native, out, "01") == []


def test_it_runs_the_group_level_in_the_image(
    image: str, directory: Path, bids_dir: Path, native: Path
) -> None:
    out = directory / "in-image"
    shutil.copytree(native, out)
    invocation = {"bids_dir": str(bids_dir), "output_dir": str(out), "analysis_level": "group"}
    (directory / "invocation.json").write_text(json.dumps(invocation))
    variables = {"BIDS_DIR": bids_dir, "OUTPUT_DIR": out}
    run(*documented("boutiques.md", "--no-pull"), cwd=directory, variables=variables)
    rows = (out / "group_wmh.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[:3] for row in rows] == [["sub-01", "n/a", "done"], ["sub-02", "n/a", "done"]]


def test_the_environment_finds_our_docker() -> None:
    """Boutiques calls ``docker``: in these tests that is podman, and no daemon of the machine."""
    first = next(
        Path(part) / "docker"
        for part in ENVIRONMENT["PATH"].split(os.pathsep)
        if (Path(part) / "docker").exists()
    )
    assert first.resolve() == ROOT / "tests" / "container" / "docker"
