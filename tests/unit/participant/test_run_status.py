"""The status table of real runs: one that ends, one that is stopped, one that is killed."""

from __future__ import annotations

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bids_wmh_uad.bids import status
from bids_wmh_uad.bids.status import FAILED, INTERRUPTED, UNFINISHED, WAITING, StatusTable
from bids_wmh_uad.cli.run import main
from bids_wmh_uad.errors import EXIT_SESSION_FAILED, Stopped
from bids_wmh_uad.participant.run import follow
from bids_wmh_uad.workflows import engine

ROOT = Path(__file__).parents[3]
SECONDS = 120.0


def scans(subject: str) -> list[str]:
    return [f"sub-{subject}/anat/sub-{subject}_{contrast}.nii.gz" for contrast in ("T1w", "FLAIR")]


@pytest.fixture
def dataset(tmp_path: Path, make_dataset) -> Path:
    """Two sessions too small to be done, one without a T1w, one whose FLAIR was not fetched."""
    names = [*scans("01"), *scans("02"), "sub-03/anat/sub-03_FLAIR.nii.gz", scans("04")[0]]
    return make_dataset(tmp_path / "ds", *names, links={scans("04")[1]: "../../.git/annex/objects/none"})


def statuses(out: Path) -> dict[str, str]:
    (path,) = out.glob("logs/*/status.tsv")
    with path.open(newline="", encoding="utf-8") as handle:
        return {row["participant_id"]: row["status"] for row in csv.DictReader(handle, delimiter="\t")}


@pytest.mark.usefixtures("own_directory")
def test_a_run_that_ends(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(dataset), str(out), "participant", "--score", "brightness"]) == EXIT_SESSION_FAILED
    assert statuses(out) == {"sub-01": FAILED, "sub-02": FAILED, "sub-03": WAITING, "sub-04": WAITING}
    (log,) = out.glob("logs/*/bids-wmh-uad.log")
    assert f"{FAILED:<17}     2  sub-01, sub-02\n{WAITING:<17}     2  sub-03, sub-04" in log.read_text()


def test_nipype_can_pickle_what_follows_the_sessions(tmp_path: Path) -> None:
    """It writes its settings, and the callback among them, beside every MapNode, such as the figures' sink."""
    table = StatusTable(tmp_path / "status.tsv", [], [])
    progress = engine.Progress({"sub_1_wf": "sub-1"}, "publish", ended=partial(follow, table))
    assert pickle.loads(pickle.dumps(progress)).sessions == progress.sessions


@pytest.mark.usefixtures("own_directory")
@pytest.mark.parametrize("level", ["participant", "train"])
def test_a_run_that_is_stopped_as_its_table_appears(
    level: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment at which somebody who waits for the table sends the signal."""
    write = status.write_text

    def write_and_be_stopped(path: Path, text: str) -> Path:
        monkeypatch.undo()
        write(path, text)
        raise Stopped(signal.SIGTERM, "SIGTERM")

    monkeypatch.setattr(status, "write_text", write_and_be_stopped)
    out = tmp_path / "out"
    model = ["--output-model", str(tmp_path / "model")] if level == "train" else []
    assert main([str(dataset), str(out), level, *model]) == 128 + signal.SIGTERM
    assert statuses(out) == {
        "sub-01": INTERRUPTED,
        "sub-02": INTERRUPTED,
        "sub-03": WAITING,
        "sub-04": WAITING,
    }


@pytest.mark.usefixtures("own_directory")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, INTERRUPTED), (signal.SIGKILL, UNFINISHED)])
def test_a_run_that_does_not_end(
    number: signal.Signals, expected: str, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "bids_wmh_uad",
        str(dataset),
        str(out),
        "participant",
        "--score",
        "brightness",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        deadline = time.monotonic() + SECONDS
        while not list(out.glob("logs/*/status.tsv")) and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(number)
    assert running.returncode != 0
    assert statuses(out) == {"sub-01": expected, "sub-02": expected, "sub-03": WAITING, "sub-04": WAITING}
