"""Processes: which one this is, whether another still runs, and that children end with their parent.

A process is known by its machine, its process namespace (a container's), its number and when it started:
numbers are given again, and the first process of every container has number 1.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of ``prctl``: which signal the kernel sends when the parent ends."""
NO_START = "0"
"""In place of the start time where the kernel does not tell it."""
ENDED = "ZX"
"""States in ``/proc`` of processes that have ended, and whose parent has not asked yet."""


@dataclass(frozen=True)
class Process:
    """A process, as files name it.

    Attributes
    ----------
    place : str
        Digest of the machine's boot and the process namespace.
    pid : int
    started : str
        Clock ticks after the machine's boot.
    """

    place: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.started}"


def this_process() -> Process:
    """The process that asks."""
    return Process(_place(), os.getpid(), _state(os.getpid())[1])


def read_process(text: str) -> Process | None:
    """The process of which `text` was made by ``str``; None where it was not."""
    place, _, rest = text.partition("-")
    pid, _, started = rest.partition("-")
    return Process(place, int(pid), started) if place and pid.isdecimal() and started else None


def is_alive(process: Process) -> bool | None:
    """Whether a process still runs; None where this process cannot see it: another machine, container or user."""
    if process.place != _place():
        return None
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    state, started = _state(process.pid)
    if NO_START in (started, process.started):
        return None
    return started == process.started and state not in ENDED


def die_with_parent(parent: int) -> None:
    """Let a child process end when its parent does, however that ends; leave Ctrl-C to the parent.

    Linux sends the signal when the *thread* ends that made this process: call it in children of threads
    that live as long as they are needed. Elsewhere nothing happens.

    Parameters
    ----------
    parent : int
        The parent's process number: it may have ended before this is called.
    """
    if os.getpid() == parent:  # the work stayed where it was, on a thread
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a fork inherits the parent's handlers
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def end_children(seconds: float = 2.0) -> None:
    """End all processes that this one started, and theirs; wait so long for them.

    Parameters
    ----------
    seconds : float
        Some take no notice of SIGTERM, such as multiprocessing's tracker, which ends by itself.
    """
    children = _descendants(os.getpid())
    for pid in children:
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while any(_state(pid)[0] not in ENDED for pid in children) and time.monotonic() < until:
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    """The children of a process and theirs, the nearest first."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, listed.read_text().split())
    return found + [grandchild for child in found for grandchild in _descendants(child)]


def _state(pid: int) -> tuple[str, str]:
    """A process's state (a letter) and start time, from ``/proc``."""
    try:
        # the name, in brackets, may hold anything; the state is the third field, the start the 22nd
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return ENDED[0], NO_START


def _place() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]
