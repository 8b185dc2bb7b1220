"""Locks between processes, of one machine or of many that share a disk: one works on a session, the others are told.

A lock is a file that says whose it is. It is made in one step that is atomic on NFS too (a hard link; where
there are none, ``O_EXCL``), and its owner shows that it lives by setting the file's time. A dead owner's
lock passes on at once where its process can be looked for, and after `SILENCE` elsewhere.

A dead owner's file is not removed, for two who find it could both remove it, the second one the first's new lock.
Whoever comes next makes a second file, named after the content of the first: only one can. It owns
the lock as long as the first file, the root, is there; who ends removes the root first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

from bids_wmh_uad.errors import BUSY, BusyError
from bids_wmh_uad.files import not_written, temporary_file
from bids_wmh_uad.processes import is_alive, read_process, this_process
from bids_wmh_uad.reading import read_bytes

HEARTBEAT = 20.0
"""Seconds between two signs of life."""
SILENCE = 300.0
"""Seconds without one after which an owner that cannot be looked for counts as dead."""
POLL = 0.2
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES)
"""What file systems without hard links say."""


@dataclass(frozen=True)
class _Held:
    """One lock of this process.

    Attributes
    ----------
    root : Path
        The lock's first file.
    first : bytes
        The root's content.
    chain : tuple of Path
        The files of dead owners after the root, and this process's own, the last; without any the root is its own.
    own : bytes
        The content of this process's file.
    """

    root: Path
    first: bytes
    chain: tuple[Path, ...]
    own: bytes

    @property
    def file(self) -> Path:
        return self.chain[-1] if self.chain else self.root


class Locks:
    """The locks of this process; as a context manager, it gives all back at its end.

    Parameters
    ----------
    heartbeat, silence : float
        Seconds; see `HEARTBEAT` and `SILENCE`, which all processes must share.
    """

    def __init__(self, heartbeat: float = HEARTBEAT, silence: float = SILENCE) -> None:
        self._heartbeat, self._silence = heartbeat, silence
        self._held: list[_Held] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._show_life, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(self._heartbeat)
        while self._held:
            _release(self._held.pop())

    def take(self, path: Path, what: str, wait: float = 0.0) -> None:
        """Take a lock.

        Parameters
        ----------
        path : Path
            The lock's file; its directory is made.
        what : str
            What it stands for, for people.
        wait : float
            Seconds to wait for an owner that lives.

        Raises
        ------
        BusyError
            `errors.BUSY`, when another process has it.
        CannotCreateError, StorageError
            If the file cannot be made.
        """
        until = time.monotonic() + wait
        while True:
            try:
                self._held.append(self._try(path, what))
            except BusyError:
                if time.monotonic() >= until:
                    raise
                time.sleep(POLL)
            except OSError as error:
                raise not_written(path, error) from error
            else:
                return

    def _try(self, path: Path, what: str) -> _Held:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = json.dumps(
            {"process": str(this_process()), "host": socket.gethostname(), "id": uuid4().hex}
        ).encode()
        claim = temporary_file(path.parent)
        try:
            claim.write_bytes(own)
            now = claim.stat().st_mtime  # the file server's clock, as of the signs of life
            while (held := self._follow(path, claim, own, now, what)) is None:
                pass
        finally:
            claim.unlink(missing_ok=True)
        return held

    def _follow(self, root: Path, claim: Path, own: bytes, now: float, what: str) -> _Held | None:
        """Go along a lock's files to its end and add the own one; None when they changed meanwhile."""
        first, file = own, root
        chain: tuple[Path, ...] = ()
        while not _link(claim, file):
            try:
                content, seen = read_bytes(file), file.stat().st_mtime
            except FileNotFoundError:
                return None
            if file == root:
                first = content
            self._require_dead(content, now - seen, what)
            file = _successor(root, content)
            chain = (*chain, file)
        held = _Held(root, first, chain, own)
        if chain and not _holds(root, first):
            file.unlink(missing_ok=True)
            return None
        return held

    def _require_dead(self, content: bytes, silent: float, what: str) -> None:
        """Raise unless the owner of a lock's file is dead, or has been silent for too long."""
        try:
            owner = json.loads(content)
            process, host = read_process(owner["process"]), str(owner["host"])
        except (ValueError, KeyError, TypeError, AttributeError):  # half written, or not ours
            process, host = None, "?"
        alive = is_alive(process) if process else None
        if alive or (alive is None and silent < self._silence):
            pid = process.pid if process else "?"
            minutes = self._silence / 60
            raise BusyError(BUSY.format(where=what, pid=pid, host=host, minutes=minutes))

    def _show_life(self) -> None:
        while not self._end.wait(self._heartbeat):
            for held in tuple(self._held):
                with suppress(OSError):
                    os.utime(held.file)


def _link(claim: Path, file: Path) -> bool:
    """Make `file` with the content of `claim`, unless there is one."""
    try:
        os.link(claim, file)
    except FileExistsError:
        # over NFS the answer of a link that was made can be lost, and the repeated request fails
        return claim.stat().st_nlink > 1 and file.stat().st_ino == claim.stat().st_ino
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            with file.open("xb") as made:
                made.write(claim.read_bytes())
        except FileExistsError:
            return False
    return True


def _successor(root: Path, content: bytes) -> Path:
    """The file of whoever follows the owner that wrote `content`."""
    return root.with_name(f"{root.name}.{hashlib.sha256(content).hexdigest()[:16]}")


def _holds(path: Path, content: bytes) -> bool:
    with suppress(OSError):
        return read_bytes(path) == content
    return False


def _release(held: _Held) -> None:
    """Give a lock back, the root first; one that passed on, after too long a silence, is left to its new owner."""
    with suppress(OSError):
        if _holds(held.root, held.first) and not _successor(held.root, held.own).exists():
            for path in (held.root, *held.chain):
                path.unlink(missing_ok=True)
