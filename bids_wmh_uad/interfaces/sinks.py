"""The node that puts an output in its place and writes its sidecar, by niworkflows' rules.

Images go into the staging tree uncompressed: the sink would compress them again at the slowest
level, in the process that schedules everything. Publishing compresses them.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from niworkflows.interfaces.bids import DerivativesDataSink


class WmhDataSink(DerivativesDataSink):
    """niworkflows' data sink, told the name: it makes none of its own.

    Parameters
    ----------
    place : PurePath
        Below ``base_directory``. The extension is the file's own; ``{desc}`` in it is the input ``desc``.
    **inputs
        Of niworkflows' sink.
    """

    out_path_base = ""

    def __init__(self, place: PurePath, **inputs: Any) -> None:
        super().__init__(**inputs)
        stem = str(place.with_name(place.name.partition(".")[0]))
        self._file_patterns = (f"{stem}{{extension}}",)
