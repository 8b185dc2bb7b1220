"""What nipype keeps of every step: its results, signed, and no more than is read again.

`workdir` keeps others out of a work directory. Signatures hold where it cannot: in a directory whose parent others
may write to, they can exchange the whole while the program runs.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nipype.interfaces.base import specs
from nipype.pipeline.engine import base, nodes, utils
from nipype.utils.filemanip import indirectory

from bids_wmh_uad.errors import UNSIGNED_PICKLE, UntrustedDirectoryError
from bids_wmh_uad.reading import read_bytes

MAX_PICKLE_BYTES = 2**28
"""Largest pickle that is read, bytes: a step's results take some kilobytes."""
NEVER_READ = ("_node.pklz", "_inputs.pklz")
"""Pickles beside each result, for who looks for errors in nipype."""
SIGNATURE_BYTES = 87
"""Length of a signature: 64 digits as a gzip member of their own, which readers of the pickle before it pass over."""


@contextmanager
def kept(keys: Mapping[Path, str]) -> Iterator[None]:
    """Let nipype, in this process and in those forked meanwhile, sign what it pickles and read only that.

    Pickles that are there without a signature are removed: their steps run again. A file that stays as it is is hashed
    once in a process: each step that takes an image wants its hash.

    Parameters
    ----------
    keys : mapping
        The key of each directory below which there are pickles; see `workdir.open_private`.
    """

    def save(filename: str, record: Any, versioning: bool = False) -> None:  # noqa: ARG001 (nipype's signature)
        path = Path(filename)
        if path.name in NEVER_READ:
            return
        content = gzip.compress(pickle.dumps(record), compresslevel=1, mtime=0)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(content + _signature(path, content, keys))
        temporary.replace(path)

    def load(filename: str | Path) -> Any:
        path = Path(filename)
        content = _signed_content(path, keys)
        if content is None:
            raise UntrustedDirectoryError(UNSIGNED_PICKLE.format(path=path))
        with indirectory(path.parent):
            return pickle.loads(gzip.decompress(content))  # noqa: S301 (this is the check)

    for path in (path for directory in keys for path in directory.rglob("*.pklz")):
        if not _is_signed(path, keys):
            path.unlink()
    instead = {"savepkl": save, "loadpkl": load, "clean_working_directory": _as_they_are}
    places = [(module, name) for module in (base, nodes, utils) for name in instead if hasattr(module, name)]
    instead["hash_infile"] = _hashed_once()
    places.append((specs, "hash_infile"))
    before = [getattr(*place) for place in places]
    for module, name in places:
        setattr(module, name, instead[name])
    try:
        yield
    finally:
        for place, function in zip(places, before, strict=True):
            setattr(*place, function)


def _as_they_are(outputs: Any, *_: Any, **__: Any) -> Any:
    """In place of nipype's search for files to remove from a step's directory: all of them stay."""
    return outputs


def _hashed_once() -> Callable[[str], str | None]:
    """A function for the hash of a file's content that remembers it as long as size, times and place are the same."""
    known: dict[tuple[Any, ...], str] = {}

    def digest(name: str) -> str | None:
        path = Path(name)
        if not path.is_file():
            return None
        status = path.stat()
        key = (name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in known:
            with path.open("rb") as handle:
                known[key] = hashlib.file_digest(handle, "sha256").hexdigest()
        return known[key]

    return digest


def _signature(path: Path, content: bytes, keys: Mapping[Path, str]) -> bytes:
    """The signature of a pickle at its place: moved elsewhere, it is another step's."""
    key = next(keys[parent] for parent in path.parents if parent in keys)
    digits = hmac.new(key.encode(), str(path).encode() + b"\0" + content, hashlib.sha256).hexdigest()
    return gzip.compress(digits.encode(), compresslevel=0, mtime=0)


def _signed_content(path: Path, keys: Mapping[Path, str]) -> bytes | None:
    """A pickle, compressed, without its signature; None where that does not fit."""
    whole = read_bytes(path, MAX_PICKLE_BYTES)
    content, signature = whole[:-SIGNATURE_BYTES], whole[-SIGNATURE_BYTES:]
    return content if hmac.compare_digest(signature, _signature(path, content, keys)) else None


def _is_signed(path: Path, keys: Mapping[Path, str]) -> bool:
    try:
        return _signed_content(path, keys) is not None
    except OSError:
        return False
