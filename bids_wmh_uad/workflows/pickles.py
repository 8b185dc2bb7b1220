"""nipype's pickles, signed: what was put in their place is not read.

`workdir` keeps others out of a work directory. This holds where it cannot: in a directory whose parent others may
write to, they can exchange the whole while the program runs.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nipype.pipeline.engine import base, nodes, utils
from nipype.utils.filemanip import indirectory, savepkl

from bids_wmh_uad.errors import UNSIGNED_PICKLE, UntrustedDirectoryError
from bids_wmh_uad.reading import read_bytes, read_text

MAX_PICKLE_BYTES = 2**28
"""Largest pickle that is read, bytes: a step's inputs and results take some kilobytes."""
SIGNATURE = ".hmac"
"""End of the name of a pickle's signature, beside it."""


@contextmanager
def signed(keys: Mapping[Path, str]) -> Iterator[None]:
    """Let nipype, in this process and in those forked meanwhile, sign what it pickles and read only that.

    Pickles that are there without a signature are removed: their steps run again.

    Parameters
    ----------
    keys : mapping
        The key of each directory below which there are pickles; see `workdir.open_private`.
    """

    def save(filename: str, record: Any, versioning: bool = False) -> None:
        savepkl(filename, record, versioning=versioning)
        content = Path(filename).read_bytes()
        Path(filename + SIGNATURE).write_text(_signature(Path(filename), content, keys))

    def load(filename: str | Path) -> Any:
        path = Path(filename)
        content = read_bytes(path, MAX_PICKLE_BYTES)
        if not hmac.compare_digest(_read(path), _signature(path, content, keys)):
            raise UntrustedDirectoryError(UNSIGNED_PICKLE.format(path=path))
        with indirectory(path.parent):
            return pickle.loads(gzip.decompress(content))  # noqa: S301 (this is the check)

    for path in (path for directory in keys for path in directory.rglob("*.pklz")):
        if not _is_signed(path, keys):
            path.unlink()
    places = [(module, name) for module in (base, nodes, utils) for name in ("savepkl", "loadpkl")]
    before = [getattr(*place) for place in places]
    for module, name in places:
        setattr(module, name, save if name == "savepkl" else load)
    try:
        yield
    finally:
        for place, function in zip(places, before, strict=True):
            setattr(*place, function)


def _signature(path: Path, content: bytes, keys: Mapping[Path, str]) -> str:
    """The signature of a pickle at its place: moved elsewhere, it is another step's."""
    key = next(keys[parent] for parent in path.parents if parent in keys)
    return hmac.new(key.encode(), str(path).encode() + b"\0" + content, hashlib.sha256).hexdigest()


def _is_signed(path: Path, keys: Mapping[Path, str]) -> bool:
    try:
        content = read_bytes(path, MAX_PICKLE_BYTES)
    except OSError:
        return False
    return hmac.compare_digest(_read(path), _signature(path, content, keys))


def _read(path: Path) -> str:
    try:
        return read_text(Path(str(path) + SIGNATURE))
    except (OSError, ValueError):
        return ""
