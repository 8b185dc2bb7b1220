"""Writing files so that each appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bids_wmh_uad.errors import CANNOT_CREATE, CannotCreateError, StorageError


def write_atomically(path: Path, content: bytes) -> bool:
    """Write `content` to `path` in one step; leave a file that already holds it alone.

    Returns
    -------
    bool
        Whether the file was written.

    Raises
    ------
    CannotCreateError
        If the directory or file cannot be created.
    StorageError
        If the disk is full or broken.
    """
    with suppress(OSError):
        if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
            return False
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file to write to, which becomes `path` in one step if nothing fails.

    Raises
    ------
    CannotCreateError
        If the directory or file cannot be created.
    StorageError
        If the disk is full or broken.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        _readable(temporary)
        os.replace(temporary, path)  # noqa: PTH105 (Path.replace is the same call)
    except OSError as error:
        kind = StorageError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else CannotCreateError
        raise kind(CANNOT_CREATE.format(path=path, reason=error.strerror or error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _readable(path: Path) -> None:
    """Give a temporary file (0600) the permissions the umask asks for."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def dump_json(value: Any) -> bytes:
    """JSON as this dataset writes it: sorted keys, two spaces, a final newline."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
