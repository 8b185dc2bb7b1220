"""Locks between processes, and what is known of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bids_wmh_uad.errors import BUSY, BusyError
from bids_wmh_uad.files import FORGOTTEN_SECONDS, TEMPORARY, sweep, temporary_file, whole_file
from bids_wmh_uad.locks import SILENCE, Locks
from bids_wmh_uad.processes import Process, die_with_parent, is_alive, read_process, this_process

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
RACER = """
import os, sys, time
from pathlib import Path
from bids_wmh_uad.errors import BusyError
from bids_wmh_uad.locks import Locks
root, inside = Path(sys.argv[1]), Path(sys.argv[2])
for turn in range(60):
    try:
        with Locks() as locks:
            locks.take(root / f"turn-{turn % 3}.lock", "turn", wait=60)
            os.close(os.open(inside / str(turn % 3), os.O_CREAT | os.O_EXCL))
            time.sleep(0.001)
            (inside / str(turn % 3)).unlink()
            if turn % 20 == 19 and len(sys.argv) > 3:
                os._exit(0)  # dies with the lock
    except FileExistsError:
        sys.exit("two were in")
"""
HOLDER = """
import os, sys
from pathlib import Path
from bids_wmh_uad.files import temporary_file
from bids_wmh_uad.locks import Locks
locks = Locks().__enter__()
for path in sys.argv[1:]:
    locks.take(Path(path), "it")
    temporary_file(Path(path).parent)
print("ready", flush=True)
sys.stdin.read()
"""
ELSEWHERE = Process("another-place".replace("-", ""), 1, "1")


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def holder(*paths: Path) -> subprocess.Popen[str]:
    """A process that holds locks until it is killed, and has a temporary file beside each."""
    process = run(HOLDER, *paths)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def foreign_lock(path: Path, age: float) -> None:
    path.write_text(json.dumps({"process": str(ELSEWHERE), "host": "node7", "id": "x"}))
    os.utime(path, (time.time() - age,) * 2)


def test_never_two_at_once_and_the_dead_do_not_block(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    racers = [run(RACER, tmp_path, inside, *["die"] * (number % 2)) for number in range(6)]
    assert [racer.wait(timeout=300) for racer in racers] == [0] * 6
    with Locks() as locks:
        for turn in range(3):
            locks.take(tmp_path / f"turn-{turn}.lock", "turn", wait=60)
    assert list(tmp_path.iterdir()) == [inside]
    assert not list(inside.iterdir())


def test_a_lock_is_taken_over_from_a_dead_process_and_not_from_a_living_one(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    process = holder(path)
    text = BUSY.format(where="it", pid=process.pid, host=os.uname().nodename, minutes=SILENCE / 60)
    with Locks() as locks, pytest.raises(BusyError) as raised:
        locks.take(path, "it")
    assert str(raised.value) == text
    os.utime(path, (0, 0))  # however silent: it is seen to live
    with Locks() as locks, pytest.raises(BusyError):
        locks.take(path, "it")
    process.kill()  # not waited for: a zombie is dead
    with Locks() as locks:
        locks.take(path, "it", wait=30)
        with Locks() as others, pytest.raises(BusyError):
            others.take(path, "it")
    process.wait()
    sweep([tmp_path])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"process": 3, "host": 1}', b"[]", b"\xff\xfe"])
def test_an_owner_that_cannot_be_looked_for_counts_as_dead_after_a_silence(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "it.lock"
    for age, free in ((SILENCE / 2, False), (SILENCE * 2, True)):
        foreign_lock(path, age)
        if content is not None:
            path.write_bytes(content)
            os.utime(path, (time.time() - age,) * 2)
        with Locks() as locks:
            if free:
                locks.take(path, "it")
            else:
                with pytest.raises(BusyError):
                    locks.take(path, "it")
    assert list(tmp_path.iterdir()) == []


def test_the_owner_shows_that_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with Locks(heartbeat=0.05) as locks:
        locks.take(path, "it")
        os.utime(path, (0, 0))
        until = time.monotonic() + 60
        while path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.05)
        assert path.stat().st_mtime > 0


def test_a_lock_that_passed_on_is_not_given_back_by_its_old_owner(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with Locks() as new:
        with Locks() as old:
            old.take(path, "it")
            content = json.loads(path.read_text())
            path.write_text(json.dumps({**content, "process": str(ELSEWHERE)}))
            old._held[0] = type(old._held[0])(path, path.read_bytes(), (), path.read_bytes())
            os.utime(path, (0, 0))
            new.take(path, "it")
        with Locks() as third, pytest.raises(BusyError):
            third.take(path, "it")
    assert list(tmp_path.iterdir()) == []


def test_locks_work_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)  # as vfat does, which tests cannot mount
    with Locks() as locks:
        locks.take(tmp_path / "it.lock", "it")
        with Locks() as others, pytest.raises(BusyError):
            others.take(tmp_path / "it.lock", "it")
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_the_dead_are_swept_and_no_others(tmp_path: Path) -> None:
    process = holder(tmp_path / "a.lock")
    sweep([tmp_path])
    (of_living,) = tmp_path.glob(f"{TEMPORARY}*")
    now, old = time.time(), time.time() - 2 * FORGOTTEN_SECONDS
    for name, when in (("recent", now), ("forgotten", old)):
        for maker in (f"{ELSEWHERE}-{name}", name):  # another machine's, and an earlier version's
            path = tmp_path / f"{TEMPORARY}{maker}"
            path.touch()
            os.utime(path, (when, when))
    with whole_file(tmp_path / "out.txt") as own:
        swept = sweep([tmp_path, tmp_path / "absent"])
        assert own.exists()
    assert {path.name.rpartition("-")[2] for path in swept} == {"forgotten"}
    assert of_living.exists()
    process.kill()
    process.wait()
    assert sweep([tmp_path]) == [of_living]
    assert len(list(tmp_path.glob(f"{TEMPORARY}*recent"))) == 2


def test_processes_are_known_by_more_than_their_number() -> None:
    own = this_process()
    assert read_process(str(own)) == own
    assert is_alive(own)
    assert is_alive(Process(own.place, own.pid, own.started + "1")) is False  # the number was given again
    assert is_alive(Process(own.place, 2**22 + 1, "5")) is False
    assert is_alive(ELSEWHERE) is None
    assert [read_process(text) for text in ("", "a", "a-b-c", "a-1", "-1-2")] == [None] * 5


def test_a_workers_own_process_goes_on(tmp_path: Path) -> None:
    temporary_file(tmp_path)
    die_with_parent(os.getpid())  # joblib kept the work in this process
    assert is_alive(this_process())
