"""Signals: one that is not heard in time, and a second one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bids_wmh_uad.cli.signals import stoppable

ROOT = Path(__file__).parents[3]
STUBBORN = """
import sys, time
from bids_wmh_uad.cli import signals
from bids_wmh_uad.errors import Stopped
signals.GRACE = float(sys.argv[1])
with signals.stoppable():
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except Stopped:
            print("heard", flush=True)
"""


def stubborn(grace: float) -> subprocess.Popen[str]:
    """A process that goes on when it is told to stop."""
    command = [sys.executable, "-c", STUBBORN, str(grace)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_program_at_once(number: signal.Signals) -> None:
    process = stubborn(grace=1000)
    process.send_signal(number)
    assert process.stdout
    assert process.stdout.readline() == "heard\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + number


def test_what_does_not_stop_is_ended() -> None:
    process = stubborn(grace=0.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + signal.SIGTERM


PARALLEL = """
import os, sys, time
from pathlib import Path
from bids_wmh_uad.cli.signals import stoppable
from bids_wmh_uad.core.parallel import process_map
from bids_wmh_uad.errors import Stopped
def work(number):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(600)
with stoppable():
    try:
        process_map(work, range(4), 2)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_worker_processes_of_the_group_and_train_levels_end_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    script, notes = tmp_path / "parallel.py", tmp_path / "notes"
    script.write_text(PARALLEL)
    notes.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script, notes],
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while len(list(notes.iterdir())) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    workers = [int(path.name) for path in notes.iterdir()]
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    said = process.communicate(timeout=120)[1]  # ends when the last one that holds stderr has
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:  # joblib's tracker of shared memory says what it clears up
        assert said == ""
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
