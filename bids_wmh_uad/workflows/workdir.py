"""Work directories that only this user can have written to.

nipype keeps the result of every step as a pickle, and reading a pickle runs what is in it. So nothing is taken
from a directory that others own or may write to, or that was unpacked or copied here: a directory made by this
program, here, carries a *seal*, two files of which the second says inode and change time of the first. Nobody can
choose these, so no archive brings a seal that fits; a tree without one is made anew. The second file also holds a
key, with which `cache` signs.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from bids_wmh_uad.errors import (
    FOREIGN_DIRECTORY,
    LINK_OUTSIDE,
    OPEN_DIRECTORY,
    UntrustedDirectoryError,
)
from bids_wmh_uad.files import current_umask, not_written, temporary_file

LOGGER = logging.getLogger("bids_wmh_uad")
PRIVATE = 0o700
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
SEAL, SEALED = ".seal", ".sealed"
NOT_MADE_HERE = (
    "%s was not made here by this program (copied, unpacked, or its modes were changed): it is not used"
)


def open_directory(path: Path) -> None:
    """Make a directory for this user alone, or check one that is there.

    Raises
    ------
    UntrustedDirectoryError
        If it is another user's, others may write there, or it is a link.
    CannotCreateError, StorageError
        If it cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(PRIVATE)
        if path.is_symlink():
            raise UntrustedDirectoryError(LINK_OUTSIDE.format(path=path, target=path.resolve()))
        owner = _owner(path) if os.access(path, os.W_OK) else os.geteuid()
        _check(path, path.stat(), owner, OTHERS_WRITE)
    except OSError as error:
        raise not_written(path, error) from error


def open_private(path: Path, work_dir: Path) -> None:
    """Make a directory with a seal, or open one that an earlier run made; one without a seal that fits is emptied.

    Parameters
    ----------
    path : Path
        Its directory is there (`open_directory`). No other process uses it, unless all only add files.
    work_dir : Path
        Where links in it may lead.

    Raises
    ------
    UntrustedDirectoryError
        If it is another user's or open to others, or has anything in it that is, or that leads out of `work_dir`.
    CannotCreateError, StorageError
        If it cannot be made.
    """
    try:
        owner = _owner(path.parent)
        with suppress(FileNotFoundError):
            _check(path, path.lstat(), owner, OTHERS_WRITE)
            if not (_check_content(path, work_dir, owner) and _has_seal(path)):
                LOGGER.info(NOT_MADE_HERE, path)
                _remove(path)
        if not path.is_dir():
            _make_sealed(path)
    except OSError as error:
        raise not_written(path, error) from error


def _owner(directory: Path) -> int:
    """Whose files are that this process makes: not always its own user's, such as root's on many network disks."""
    probe = temporary_file(directory)
    try:
        return probe.stat().st_uid
    finally:
        probe.unlink(missing_ok=True)


def _check(path: Path, status: os.stat_result, owner: int, forbidden: int) -> None:
    """Raise if a file or directory is not the owner's alone to write."""
    if status.st_uid != owner:
        raise UntrustedDirectoryError(FOREIGN_DIRECTORY.format(path=path, owner=status.st_uid))
    if status.st_mode & forbidden and not stat.S_ISLNK(status.st_mode):
        mode = f"{stat.S_IMODE(status.st_mode):o}"
        raise UntrustedDirectoryError(OPEN_DIRECTORY.format(path=path, mode=mode))


def _check_content(path: Path, work_dir: Path, owner: int) -> bool:
    """Whether all modes in a directory are as this umask makes them, so that nobody opened it meanwhile.

    Raises
    ------
    UntrustedDirectoryError
        If anything in it, or it itself, is another user's, is open to everybody, or leads out of the work directory.
    """
    umask = current_umask()
    usual, todo = True, [path]
    while todo:
        item = todo.pop()
        status = item.lstat()
        _check(item, status, owner, stat.S_IWOTH & umask)
        if stat.S_ISLNK(status.st_mode):
            if not item.resolve().is_relative_to(work_dir):
                raise UntrustedDirectoryError(LINK_OUTSIDE.format(path=item, target=item.resolve()))
        elif status.st_mode & OTHERS_WRITE & umask:
            usual = False
        if stat.S_ISDIR(status.st_mode):
            todo += item.iterdir()
    return usual


def _make_sealed(path: Path) -> None:
    """Make a directory with its seal; it appears whole, and where another process was faster its own stays."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.mkdir(PRIVATE)
    seal = temporary / SEAL
    seal.touch(0o600)
    sealed = temporary / SEALED
    sealed.touch(0o600)
    sealed.write_text(f"{_identity(seal)} {secrets.token_hex()}")
    try:
        temporary.rename(path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not path.is_dir():
            raise


def read_key(path: Path) -> str:
    """The key of a directory that `open_private` opened: for this user alone, and only here (see `cache`).

    Raises
    ------
    StorageError, CannotCreateError
        If it cannot be read any more.
    """
    try:
        return (path / SEALED).read_text().rpartition(" ")[2]
    except OSError as error:
        raise not_written(path, error) from error


def _has_seal(path: Path) -> bool:
    try:
        return (path / SEALED).read_text().rpartition(" ")[0] == _identity(path / SEAL)
    except (OSError, ValueError):
        return False


def _identity(seal: Path) -> str:
    status = seal.lstat()
    return f"{status.st_ino} {status.st_ctime_ns}"


def _remove(path: Path) -> None:
    """Remove a tree, out of everybody's way first; a link is removed itself."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    path.rename(aside)
    if aside.is_symlink() or not aside.is_dir():
        aside.unlink()
    else:
        shutil.rmtree(aside, ignore_errors=True)
