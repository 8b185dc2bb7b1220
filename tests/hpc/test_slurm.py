"""The scripts of examples/slurm and nipype's SLURM plugin, on a real Slurm of one node."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster
from container.fixtures import ROOT, SUBJECTS, differences, documented, require

from bids_wmh_uad.bids.derivatives import BIDSIGNORE

EXAMPLES = ROOT / "examples" / "slurm"


@pytest.fixture(scope="module")
def cluster(share: Path) -> Iterator[Cluster]:
    require("slurm")
    slurm = Cluster(share / "slurm")
    (share / "scratch").mkdir()
    slurm.environment["TMPDIR"] = str(
        share / "scratch"
    )  # a node's own disk; the tests' Apptainer sees this one
    slurm.start()
    yield slurm
    slurm.stop()


def stamps(out: Path, subject: str) -> dict[str, int]:
    root = out / f"sub-{subject}"
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Routes:
    """What was there after the array with one bad participant, and after the failed one was submitted again."""

    out: Path
    failed: list[str]
    codes: dict[str, str]
    group_ran: bool
    before: dict[str, dict[str, int]]
    failed_after: list[str]


def _submit(cluster: Cluster, directory: Path, words: str, variables: dict[str, str]) -> None:
    """Run what docs/slurm.md says, in a directory with the scripts and the image, and wait for its jobs."""
    said = cluster.run(
        *documented("slurm.md", words), cwd=directory, env={**cluster.environment, **variables}
    ).stdout
    cluster.wait(*said.split())


def _failed(cluster: Cluster, bids_dir: Path, out: Path) -> list[str]:
    return cluster.run(EXAMPLES / "failed.sh", bids_dir, out).stdout.split()


@pytest.fixture(scope="module")
def routes(cluster: Cluster, share: Path, sif: Path, bids_dir: Path) -> Routes:
    bad, out = share / "one-bad", share / "array"
    shutil.copytree(bids_dir, bad)
    flair = bad / "sub-04/anat/sub-04_FLAIR.nii.gz"
    whole = flair.read_bytes()
    flair.write_bytes(whole[: len(whole) // 2])
    directory = share / "login"
    directory.mkdir()
    (directory / "examples").symlink_to(ROOT / "examples")
    (directory / "bids-wmh-uad.sif").symlink_to(sif)
    variables = {"BIDS_DIR": str(bad), "OUTPUT_DIR": str(out)}
    _submit(cluster, directory, '"$OUTPUT_DIR" bids-wmh-uad.sif\n', variables)
    failed = _failed(cluster, bad, out)
    codes = {path.stem: path.read_text().strip() for path in (out / "logs/slurm").glob("*.exit")}
    group_ran = (out / "group_wmh.tsv").exists()
    before = {label: stamps(out, label) for label in ("01", "02", "03")}
    flair.write_bytes(whole)
    _submit(cluster, directory, "bids-wmh-uad.sif failed.txt", variables)
    return Routes(out, failed, codes, group_ran, before, _failed(cluster, bad, out))


def test_one_bad_participant_fails_alone_and_holds_the_group_back(routes: Routes) -> None:
    assert routes.codes == {"sub-01": "0", "sub-02": "0", "sub-03": "0", "sub-04": "1"}
    assert routes.failed == ["sub-04"]
    assert not routes.group_ran


def test_only_the_failed_one_runs_again_and_then_the_group(routes: Routes) -> None:
    assert routes.failed_after == []
    assert {label: stamps(routes.out, label) for label in routes.before} == routes.before
    rows = (routes.out / "group_wmh.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[:3] for row in rows] == [[f"sub-{label}", "n/a", "done"] for label in SUBJECTS]


@pytest.mark.parametrize("label", ["01", "02"])
def test_the_array_gives_what_a_native_run_gives(routes: Routes, native: Path, label: str) -> None:
    assert differences(native, routes.out, label) == []


def test_tasks_that_share_the_output_directory_do_not_clash(routes: Routes) -> None:
    assert json.loads((routes.out / "dataset_description.json").read_text())["DatasetLinks"] == {
        "raw": "file:///data"
    }
    assert tuple((routes.out / ".bidsignore").read_text().split()) == BIDSIGNORE
    assert "## References" in (routes.out / "CITATION.md").read_text()
    runs = [path for path in (routes.out / "logs").iterdir() if path.name != "slurm"]
    assert len(runs) == len(SUBJECTS) + 2  # one again, and the group
    assert all((path / "config.toml").is_file() for path in runs)
    assert not list(routes.out.rglob(".tmp-*"))


def test_nothing_is_left_on_the_node_s_disk(routes: Routes, share: Path) -> None:
    assert list((share / "scratch").glob("wmh-*")) == []


def test_a_killed_task_counts_as_failed(routes: Routes, cluster: Cluster, share: Path) -> None:
    (routes.out / "logs/slurm/sub-03.exit").unlink()
    assert _failed(cluster, share / "one-bad", routes.out) == ["sub-03"]


def test_nipype_s_plugin_gives_what_a_native_run_gives(
    cluster: Cluster, share: Path, bids_dir: Path, native: Path
) -> None:
    out, jobs = share / "plugin", len(cluster.finished().splitlines())
    environment = {name: value for name, value in cluster.environment.items() if name != "LOGNAME"}
    command = documented("slurm.md", "--use-plugin")
    command[-1] = command[-1].rstrip() + " --participant-label 02"
    cluster.run(*command, cwd=ROOT, env={**environment, "BIDS_DIR": str(bids_dir), "OUTPUT_DIR": str(out)})
    assert differences(native, out, "02") == []
    done = cluster.finished().splitlines()[jobs:]
    assert len(done) > 10
    assert all("JobState=COMPLETED" in line for line in done)
