"""Names that are not UTF-8: neither JSON nor pybids' index can hold them, so they are left out and said."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bids_wmh_uad.errors import BAD_NAME, UsageError

LOGGER = logging.getLogger("bids_wmh_uad")
NOT_UTF8 = "[\udc80-\udcff]"
"""Pattern of what Python makes of a byte of a name that is not UTF-8."""


def is_utf8(path: Path) -> bool:
    """Whether all of a path is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(path: Path) -> str:
    r"""A path for messages: bytes that are not UTF-8 as ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def require_utf8(bids_dir: Path) -> None:
    """Refuse a dataset whose own path cannot be used.

    Raises
    ------
    UsageError
        `errors.BAD_NAME`.
    """
    if not is_utf8(bids_dir):
        raise UsageError(BAD_NAME.format(path=shown(bids_dir)))


def warn_of_names(bids_dir: Path, subjects: Iterable[str]) -> None:
    """Warn of participants, and of sessions and images of these subjects, whose names cannot be used."""
    for path in (*bids_dir.glob("sub-*"), *_anatomical(bids_dir / f"sub-{subject}" for subject in subjects)):
        if not is_utf8(path):
            LOGGER.warning("%s", BAD_NAME.format(path=shown(path)))


def _anatomical(subjects: Iterable[Path]) -> Iterator[Path]:
    """Sessions, and what is in ``anat``; nothing below a name that cannot be used."""
    for subject in subjects:
        sessions = list(subject.glob("ses-*"))
        yield from sessions
        for place in filter(is_utf8, (subject, *sessions)):
            yield from place.glob("anat/*")
