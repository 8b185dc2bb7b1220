"""Reading what others wrote: regular files only, of a bounded size, JSON that is JSON.

Whatever a path leads to, nothing here waits, and nothing grows without end. Readers of one kind of file
(`images`, `models`, `bids`) make their own typed errors of the OSError and ValueError that come out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 4 * 2**20
"""Largest JSON or text file, bytes: a hundred times a large sidecar; parsed, it takes some 25 times as much memory."""
MAX_TABLE_BYTES = 64 * 2**20
"""Largest table, bytes: a million participants."""
ANNEX_POINTER = b"/annex/objects/"
"""First bytes of a file whose content git-annex has not fetched."""
PIECE = 2**20
"""Bytes read at a time."""
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a path may lead to other than a file."""


def open_file(path: Path) -> BufferedReader:
    """Open a regular file, after following links; never waits, as a FIFO would have one do.

    Raises
    ------
    OSError
        If it is not there, is a broken link or a circle of them, is no regular file, or may not be read.
    """
    if path.is_symlink() and not path.exists():
        raise OSError(errno.ENOENT, f"its content is not here (broken link); run 'datalad get {path.name}'")
    _require_regular(path.stat().st_mode)  # before opening, which alone can do things to a device
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a whole file of at most `limit` bytes.

    Raises
    ------
    OSError
        As `open_file`, and if it is larger.
    """
    pieces, left = [], limit + 1
    with open_file(path) as stream:
        while left and (piece := stream.read(min(left, PIECE))):  # read() asks for all the memory at once
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return b"".join(pieces)


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Read a text file: UTF-8, with or without a byte order mark, whatever the locale.

    Raises
    ------
    OSError, ValueError
        As `read_bytes`; if it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8-sig")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    OSError
        As `read_bytes`.
    ValueError
        If it is no JSON: malformed, nested beyond reason, with NaN, infinite or overflowing numbers, or with
        text that UTF-8 cannot hold.
    """
    try:
        content = json.loads(read_text(path), parse_constant=_number, parse_float=_number)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    OSError, ValueError
        As `read_json`; if it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 (the file's value, not a caller's type)
    return content


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON")
    return number


def require_small_header(path: Path) -> None:
    """Refuse a safetensors file whose header is larger than a text file may be: it is parsed whole.

    Raises
    ------
    OSError, ValueError
        As `open_file`; if the header is too large.
    """
    with open_file(path) as stream:
        size = int.from_bytes(stream.read(8), "little")
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"a header of {size} bytes")


def sha256(path: Path) -> hashlib._Hash:
    """SHA-256 of a file, read in pieces.

    Raises
    ------
    OSError
        As `open_file`.
    """
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256")
