"""Writing files so that each appears whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bids_wmh_uad.errors import CANNOT_CREATE, CannotCreateError, StorageError, WmhUadError
from bids_wmh_uad.processes import is_alive, read_process, this_process

TEMPORARY = ".tmp-"
"""How the names of files begin that are still being written; the process that writes comes next."""
FORGOTTEN_SECONDS = 24 * 3600.0
"""Temporary files of another machine's processes, of which nobody here can know, are removed after so long."""
STORAGE_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
"""What the system says when a disk is full, broken or closed for writing."""


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


def write_text(path: Path, text: str) -> Path:
    """Write a text file so that it appears whole or not at all, making its directory.

    Returns
    -------
    Path
        `path`.
    """
    write_atomically(path, text.encode())
    return path


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
        temporary = temporary_file(path.parent)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        _readable(temporary)
        os.replace(temporary, path)  # noqa: PTH105 (Path.replace is the same call)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def not_written(path: Path | str, error: OSError) -> WmhUadError:
    """What a failed attempt to write `path` means: a `StorageError` of a full disk, else a `CannotCreateError`."""
    kind = StorageError if error.errno in STORAGE_FULL else CannotCreateError
    return kind(CANNOT_CREATE.format(path=path, reason=error.strerror or error))


def temporary_file(directory: Path) -> Path:
    """Make an empty file, readable by this user only, whose name says which process it is of (see `sweep`)."""
    handle, name = tempfile.mkstemp(dir=directory, prefix=f"{TEMPORARY}{this_process()}-")
    os.close(handle)
    return Path(name)


def sweep(directories: Iterable[Path]) -> list[Path]:
    """Remove temporary files that killed processes left.

    Those of processes that run stay, and so do those of other machines, and of other containers, for
    `FORGOTTEN_SECONDS`.

    Parameters
    ----------
    directories : iterable of Path
        Searched themselves, not what lies below them; absent ones are passed over.

    Returns
    -------
    list of Path
        The files removed.
    """
    removed = []
    for directory in directories:
        with suppress(OSError):
            for path in directory.glob(f"{TEMPORARY}*"):
                if _is_forgotten(path):
                    path.unlink(missing_ok=True)
                    removed.append(path)
    return removed


def _is_forgotten(path: Path) -> bool:
    process = read_process(path.name.removeprefix(TEMPORARY).rpartition("-")[0])
    alive = is_alive(process) if process else None
    return time.time() - path.lstat().st_mtime > FORGOTTEN_SECONDS if alive is None else not alive


def _readable(path: Path) -> None:
    """Give a temporary file (0600) the permissions the umask asks for."""
    path.chmod(0o666 & ~current_umask())


def current_umask() -> int:
    """Which permissions new files of this process lack; it can only be read by setting it."""
    umask = os.umask(0o077)  # what another thread makes meanwhile is rather too private than too open
    os.umask(umask)
    return umask


def dump_json(value: Any) -> bytes:
    """JSON as this dataset writes it: sorted keys, two spaces, a final newline, null for what is not finite."""
    try:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    except ValueError:  # NaN and infinity are no JSON, and no reader here takes them
        text = json.dumps(json_plain(value), indent=2, sort_keys=True, allow_nan=False)
    return (text + "\n").encode()


def json_plain(value: Any) -> Any:
    """What JSON can hold of numbers: lists, floats of six digits, null for what is not finite.

    Parameters
    ----------
    value : object
        Mappings, sequences, numpy arrays and scalars, at any depth.
    """
    if isinstance(value, Mapping):
        return {key: json_plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy, which this module does not import: --help must be fast
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [json_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def dump_toml(value: Mapping[str, Any]) -> str:
    """TOML of nested settings: paths as text, and without what is None, which TOML cannot hold."""
    import tomli_w

    return tomli_w.dumps(_toml_plain(value))


def _toml_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _toml_plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_toml_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
