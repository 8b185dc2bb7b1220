"""What every step of a run's sessions took: the table that lies in its log directory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path


def append_stages(path: Path, directories: Iterable[Path], since: float) -> None:
    """Append wall time, processor time and peak memory of every step to a table.

    Parameters
    ----------
    path : Path
        ``stages.tsv``; made with its header if it is not there.
    directories : iterable of Path
        The sessions' working directories.
    since : float
        Start of the run, seconds since the epoch: steps that nipype took from its cache are
        older and not listed.
    """
    columns = ("session", "stage", "seconds", "cpu_seconds", "peak_gb")
    with path.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, columns, delimiter="\t")
        if handle.tell() == 0:
            writer.writeheader()
        for directory in directories:
            written = {file: file.stat().st_mtime for file in directory.rglob("stage.json")}
            for file in sorted((file for file in written if written[file] >= since), key=written.__getitem__):
                stage = json.loads(file.read_text())
                writer.writerow(
                    {"session": directory.name.removesuffix("_wf"), "stage": file.parent.name, **stage}
                )
