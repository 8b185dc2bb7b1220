"""What the promises of ``docs/promises.md`` cost in a run that nothing disturbs: locks, signatures, whole files, tables.

One JSON line. One session, a phantom or sub-lg20 of ``ms-raw``, is run by the real program, with the functions that
keep the promises timed in it and in its workers. Seconds of each part, wall time, one within another counted once in each;
``ratio`` is the whole run's time over what it would be without them.

    python benchmarks/promises.py
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

os.environ.setdefault("NO_ET", "1")

from cohort import write_cohort

from bids_wmh_uad import files
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.status import StatusTable
from bids_wmh_uad.cli.run import main as program
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.workflows import engine, memory, pickles, workdir

PARTS: dict[str, list[tuple[Any, str]]] = {
    "locks": [(Locks, "take"), (Locks, "__exit__")],
    "private_directories": [(workdir, "open_directory"), (workdir, "open_private"), (workdir, "read_key")],
    "signed_pickles": [(pickles, "_signature"), (pickles, "_is_signed")],
    "to_disk": [(os, "fsync")],
    "sweeping": [(files, "sweep")],
    "hashes_of_scans": [(derivatives, "sha256")],
    "memory_from_headers": [(memory, "session_gb")],
    "tables": [(StatusTable, "_write"), (engine, "append_stages")],
}
"""Functions that keep promises, by where they are."""


def timed(function: Callable[..., Any], seconds: Any) -> Callable[..., Any]:
    """The function, whose wall time is added up, whatever process calls it."""

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        start = perf_counter()
        try:
            return function(*given, **named)
        finally:
            with seconds.get_lock():
                seconds.value += perf_counter() - start

    return call


def watch() -> dict[str, Any]:
    """Time the parts, under every name by which a module has them; workers inherit both."""
    spent = {}
    for part, places in PARTS.items():
        spent[part] = multiprocessing.Value("d", 0.0)
        for owner, name in places:
            function = getattr(owner, name)
            watched = timed(function, spent[part])
            setattr(owner, name, watched)
            for module in list(sys.modules.values()):
                if getattr(module, "__dict__", {}).get(name) is function:
                    setattr(module, name, watched)
    return spent


def main() -> int:
    """Print the JSON line."""
    with TemporaryDirectory(prefix="wmhpromises") as folder:
        root = Path(folder)
        write_cohort(root / "bids", 1)
        spent = watch()
        start = perf_counter()
        code = program([str(root / "bids"), str(root / "out"), "participant", "-w", str(root / "work")])
        whole = perf_counter() - start
    parts = {part: round(value.value, 3) for part, value in spent.items()}
    cost = sum(parts.values())
    print(
        json.dumps(
            {
                "name": "promises",
                "whole_s": round(whole, 1),
                "promises_s": round(cost, 2),
                "parts_s": parts,
                "ratio": round(whole / (whole - cost), 4),
            }
        )
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
