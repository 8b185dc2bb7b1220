"""The node that names an output and writes its sidecar, by niworkflows' rules.

Images go into the staging tree uncompressed: the sink would compress them again at the slowest
level, in the process that schedules everything. Publishing compresses them.
"""

from __future__ import annotations

import json
from importlib.resources import files

from niworkflows.interfaces.bids import DerivativesDataSink


class WmhDataSink(DerivativesDataSink):
    """niworkflows' data sink with this project's file patterns, writing into ``base_directory`` itself."""

    out_path_base = ""
    _config_entities = DerivativesDataSink._config_entities | {"chunk"}
    _file_patterns = tuple(
        json.loads(files("bids_wmh_uad").joinpath("data/bids_patterns.json").read_text())[
            "default_path_patterns"
        ]
    )
