"""Pybids' index of a dataset: which paths it opens, and what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids.names import ignored_paths
from bids_wmh_uad.errors import BAD_FILTER_FILE, FOREIGN_DATABASE, UsageError


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
        `errors.FOREIGN_DATABASE`, when the index is of another dataset.
    """
    from bids import BIDSLayout, BIDSLayoutIndexer

    # an index that is kept must know every subject
    ignored = ignored_paths(tuple(subjects) if database is None else ())
    indexer = BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=[ignored])
    layout = BIDSLayout(
        bids_dir, validate=False, indexer=indexer, database_path=database, config=[_entities_below(bids_dir)]
    )
    if Path(layout.root) != bids_dir:
        raise UsageError(FOREIGN_DATABASE.format(path=database, root=layout.root))
    return layout


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

    Its own patterns search the whole path: below ``/scratch/sub-9/`` every file would be subject 9's.
    """
    from bids.layout.models import Config

    entities = Config.load("bids").entities.values()
    start = f"^{re.escape(str(bids_dir))}.*?"
    return {
        "name": "bids",
        "entities": [
            {
                "name": entity.name,
                "pattern": start + entity.pattern,
                "dtype": entity._dtype,
                "mandatory": entity.mandatory,
            }
            for entity in entities
        ],
    }
