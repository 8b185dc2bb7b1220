"""Pybids' index of a dataset: which paths it opens, what is asked of it, and names that it cannot hold: those not in UTF-8."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids.names import ignored_paths
from bids_wmh_uad.errors import BAD_DATABASE, BAD_FILTER_FILE, BAD_NAME, FOREIGN_DATABASE, UsageError

LOGGER = logging.getLogger("bids_wmh_uad")
EXTENSION = r"[^./\\](\.nii\.gz|\.[^./\\]+)$"
"""Where a file's extension is: at its end."""


def open_layout(bids_dir: Path, subjects: Iterable[str], database: Path | None) -> Any:
    """Index a dataset, or open the index that is kept of it.

    Parameters
    ----------
    bids_dir : Path
        Absolute.
    subjects : iterable of str
        Only these are opened, unless the index is kept; all if empty.
    database : Path or None
        ``--bids-database-dir``.

    Returns
    -------
    bids.BIDSLayout

    Raises
    ------
    UsageError
        `errors.FOREIGN_DATABASE`, when the index is of another dataset; `errors.BAD_DATABASE`, when it cannot be read.
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    # an index that is kept must know every subject
    ignored = ignored_paths(tuple(subjects) if database is None else ())
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[ignored])
    settings = {"validate": False, "indexer": indexer, "config": [_entities_below(bids_dir)]}
    try:
        layout = BIDSLayout(bids_dir, database_path=database, **settings)
    except Exception as error:  # of the database's library, which is pybids' business
        if database is None or not database.exists():
            raise
        raise UsageError(BAD_DATABASE.format(path=database, reason=_first_line(error))) from error
    if Path(layout.root) != bids_dir:
        raise UsageError(FOREIGN_DATABASE.format(path=database, root=layout.root))
    return layout


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def find_files(layout: Any, query: Mapping[str, Any], filter_file: Path | None) -> list[Path]:
    """The files that match; an entity that pybids does not know is a usage error.

    Raises
    ------
    UsageError
        `errors.BAD_FILTER_FILE`.
    """
    try:
        return [Path(image.path) for image in layout.get(**query)]
    except (TypeError, ValueError) as error:
        raise UsageError(BAD_FILTER_FILE.format(path=filter_file, reason=error)) from error


def forget_indexes() -> None:
    """Let go of the indexes that pybids made in this process: a cache of one of their properties keeps 128 of them."""
    from bids import BIDSLayout

    BIDSLayout.config.fget.cache_clear()


def _entities_below(bids_dir: Path) -> dict[str, Any]:
    """Pybids' entities, looked for below `bids_dir` only.

    Its own patterns search the whole path: below ``/scratch/sub-9/`` every file would be subject 9's. And its extension
    begins at the first dot: a value such as ``acq-1.5mm`` would hide the image.
    """
    from bids.layout.models import Config

    entities = Config.load("bids").entities.values()
    start = f"^{re.escape(str(bids_dir))}.*?"
    return {
        "name": "bids",
        "entities": [
            {
                "name": entity.name,
                "pattern": start + (EXTENSION if entity.name == "extension" else entity.pattern),
                "dtype": entity._dtype,
                "mandatory": entity.mandatory,
            }
            for entity in entities
        ],
    }


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
