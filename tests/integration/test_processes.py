"""Several processes on one output directory, and processes that are stopped or killed: see `stub`."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from program import wmh
from stub import start, started, wait_for

from bids_wmh_uad.cli.signals import SIGNALS
from bids_wmh_uad.errors import EXIT_SESSION_FAILED, STOPPED, STOPPED_EARLY, BusyError
from bids_wmh_uad.files import TEMPORARY
from bids_wmh_uad.participant.run import DONE_ELSEWHERE

pytestmark = pytest.mark.slow
Maker = Callable[..., Path]
PROCESSES = 4
OPTIONS = ("participant", "--score", "brightness", "--participant-label")


@pytest.fixture
def dataset(tmp_path: Path, make_dataset: Maker) -> Path:
    """Four participants."""
    names = [f"sub-0{number}/anat/sub-0{number}_{suffix}.nii.gz" for number in range(PROCESSES) for suffix in ("T1w", "FLAIR")]  # fmt: skip
    return make_dataset(tmp_path / "ds", *names)


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def left_over(out: Path) -> list[Path]:
    """Locks and temporary files."""
    return [path for path in out.rglob("*") if path.suffix == ".lock" or path.name.startswith(TEMPORARY)]


def finish(runs: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    said = [run.communicate(timeout=300)[0] for run in runs]
    return [run.returncode for run in runs], said


def test_after_the_first_crash_the_others_are_told_why_they_are_not_done(
    tmp_path: Path, dataset: Path
) -> None:
    out = tmp_path / "out"
    ran = wmh(dataset, out, "participant", "--score", "brightness", "--nprocs", "1", "--stop-on-first-crash")
    assert ran.code == EXIT_SESSION_FAILED
    (table,) = out.glob("logs/*/status.tsv")
    rows = [line for line in table.read_text().splitlines() if line.startswith("sub-")]
    assert [STOPPED_EARLY in row for row in rows] == [False] + [True] * (PROCESSES - 1)


def test_of_many_on_one_participant_one_works_and_the_others_are_told(tmp_path: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    runs = [start(tmp_path, dataset, out, *OPTIONS, "00", "--nprocs", "1") for _ in range(PROCESSES)]
    wait_for(lambda: started(tmp_path), "nobody began")
    wait_for(lambda: sum(run.poll() is None for run in runs) == 1, "somebody waits")
    (tmp_path / "go").touch()
    codes, said = finish(runs)
    assert sorted(codes) == [0] + [BusyError.exit_code] * (PROCESSES - 1)
    assert all(
        ("another process works on it" in text) == (code != 0) for code, text in zip(codes, said, strict=True)
    )
    assert len(started(tmp_path)) == 1
    assert left_over(out) == []
    assert not list(out.rglob("*_desc-failed_summary.json"))
    again = start(tmp_path, dataset, out, *OPTIONS, "00")
    assert finish([again])[0] == [0]
    assert len(started(tmp_path)) == 1  # it was finished


def test_different_participants_do_not_wait_for_each_other(tmp_path: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    labels = [f"0{number}" for number in range(PROCESSES)]
    runs = [start(tmp_path, dataset, out, *OPTIONS, label, "--nprocs", "1") for label in labels]
    wait_for(lambda: len(started(tmp_path)) == PROCESSES, "somebody waits")  # all before anybody ends
    (tmp_path / "go").touch()
    assert finish(runs)[0] == [0] * PROCESSES
    assert left_over(out) == []


def test_two_runs_over_one_cohort_share_it(tmp_path: Path, dataset: Path) -> None:
    out = tmp_path / "out"
    first = start(tmp_path, dataset, out, *OPTIONS, "00", "--nprocs", "1")
    wait_for(lambda: started(tmp_path), "nobody began")
    other = start(tmp_path, dataset, out, *OPTIONS, "00", "01", "--nprocs", "2")
    wait_for(lambda: len(started(tmp_path)) == 2, "the second waits")
    (tmp_path / "go").touch()
    (code,), (said,) = finish([first])
    assert code == 0, said
    (code,), (said,) = finish([other])
    # whichever ended first: the session of the other run is done, or still in work
    assert code == (0 if DONE_ELSEWHERE % "sub-00" in said else BusyError.exit_code)
    assert len(started(tmp_path)) == 2
    assert left_over(out) == []


@pytest.mark.parametrize("nprocs", [1, 2])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_stops_all_processes_with_one_line(
    tmp_path: Path, dataset: Path, nprocs: int, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    run = start(tmp_path, dataset, out, *OPTIONS, "00", "01", "--nprocs", str(nprocs), start_new_session=True)
    wait_for(lambda: len(started(tmp_path)) == nprocs, "nobody began")
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does: to the workers as well
    else:
        run.send_signal(number)
    (code,), (said,) = finish([run])
    assert code == 128 + number
    assert "Traceback" not in said
    line = STOPPED.format(signal=SIGNALS[number])
    assert said.count(line) == 1
    assert said.splitlines()[-1].endswith(line)
    (log,) = (out / "logs").glob("*/bids-wmh-uad.log")
    assert line in log.read_text()
    assert log.with_name("stages.tsv").is_file()
    assert all(ended(pid) for pid in started(tmp_path))
    assert left_over(out) == []
    (tmp_path / "go").touch()
    assert finish([start(tmp_path, dataset, out, *OPTIONS, "00", "01")])[0] == [0]


def test_a_killed_run_takes_its_workers_with_it_and_the_next_one_clears_up(
    tmp_path: Path, dataset: Path
) -> None:
    out = tmp_path / "out"
    run = start(tmp_path, dataset, out, *OPTIONS, "00", "01", "--nprocs", "2")
    wait_for(lambda: len(started(tmp_path)) == 2, "nobody began")
    run.kill()
    run.wait()
    wait_for(lambda: all(ended(pid) for pid in started(tmp_path)), "a worker lives on")
    assert len(left_over(out)) >= 4  # two locks and two half files: nobody could clear up
    (tmp_path / "go").touch()
    assert finish([start(tmp_path, dataset, out, *OPTIONS, "00", "01")])[0] == [0]
    assert left_over(out) == []


def test_a_run_under_nohup_is_not_stopped_by_its_terminals_end(tmp_path: Path, dataset: Path) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    run = start(
        tmp_path, dataset, tmp_path / "out", *OPTIONS, "00", preexec_fn=ignore, start_new_session=True
    )
    wait_for(lambda: started(tmp_path), "nobody began")
    os.killpg(run.pid, signal.SIGHUP)
    (tmp_path / "go").touch()
    assert finish([run])[0] == [0]
