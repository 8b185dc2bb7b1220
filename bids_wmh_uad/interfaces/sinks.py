"""One data sink per output: niworkflows names the file and writes its sidecar.

Images go into the staging tree uncompressed: the sink would compress them again at the slowest
level, in the process that schedules everything. Publishing compresses them.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import nipype.pipeline.engine as pe
import numpy as np
from niworkflows.interfaces.bids import DerivativesDataSink

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.derivatives import OUTPUTS
from bids_wmh_uad.config import TEMPLATE
from bids_wmh_uad.interfaces.outputs import IMAGES

_FLAIR_SPACE: dict[str, dict[str, str]] = {
    "flair": {"desc": "preproc", "suffix": "FLAIR"},
    "t1w": {"desc": "preproc", "suffix": "T1w"},
    "brain": {"desc": "brain", "suffix": "mask"},
    "anomaly": {"desc": "anomaly", "suffix": "map"},
    "probability": {"label": "WMH", "suffix": "probseg"},
    "mask": {"label": "WMH", "suffix": "mask"},
    "lesions": {"desc": "lesions", "suffix": "dseg"},
    "regions": {"desc": "regions", "suffix": "dseg"},
}
_TRANSFORMS: dict[str, dict[str, str]] = {
    "t1w_to_flair": {"from": "T1w", "to": "FLAIR"},
    "t1w_to_template": {"from": "T1w", "to": TEMPLATE},
    "flair_to_template": {"from": "FLAIR", "to": TEMPLATE},
}


class WmhDataSink(DerivativesDataSink):
    """niworkflows' data sink with this project's file patterns, writing into ``base_directory`` itself."""

    out_path_base = ""
    _config_entities = DerivativesDataSink._config_entities | {"chunk"}
    _file_patterns = tuple(
        json.loads(files("bids_wmh_uad").joinpath("data/bids_patterns.json").read_text())[
            "default_path_patterns"
        ]
    )


def connect_sinks(workflow: Any, session: Session, staging: Path) -> None:
    """Connect every output of a session's graph to a data sink that writes into `staging`.

    Parameters
    ----------
    workflow : Workflow
        With the nodes ``finish``, ``describe``, ``segment``, ``draw`` and ``files``.
    session : Session
    staging : Path
        A tree like the output dataset's.
    """
    finish, describe, segment, draw, merge = (
        workflow.get_node(name) for name in ("finish", "describe", "segment", "draw", "files")
    )
    sinks = {}
    for name, entities in _FLAIR_SPACE.items():
        sinks[name] = _sink(
            name,
            session,
            staging,
            space="FLAIR",
            compress=False,
            data_dtype=np.dtype(IMAGES[name]).name,
            **entities,
        )
    for name, entities in _TRANSFORMS.items():
        sinks[name] = _sink(name, session, staging, mode="image", suffix="xfm", **entities)
    for name, sink in sinks.items():
        workflow.connect([
            (finish, sink, [(name, "in_file")]),
            (describe, sink, [(name, "meta_dict")]),
        ])  # fmt: skip
    sinks["table"] = _sink("table", session, staging, space="FLAIR", desc="lesions", suffix="dseg")
    sinks["summary"] = _sink("summary", session, staging, desc="wmh", suffix="summary")
    workflow.connect([
        (segment, sinks["table"], [("table", "in_file")]),
        (describe, sinks["summary"], [("summary", "in_file")]),
    ])  # fmt: skip
    for number, name in enumerate(OUTPUTS, start=1):
        workflow.connect(sinks[name], "out_file", merge, f"in{number}")
    figures = pe.MapNode(
        WmhDataSink(base_directory=str(staging), source_file=str(session.flair), datatype="figures", suffix="FLAIR"),
        iterfield=["in_file", "desc"], name="ds_figures", run_without_submitting=True,
    )  # fmt: skip
    workflow.connect([
        (draw, figures, [("figures", "in_file"), ("names", "desc")]),
        (figures, merge, [("out_file", f"in{len(OUTPUTS) + 1}")]),
    ])  # fmt: skip


def _sink(name: str, session: Session, staging: Path, **entities: Any) -> pe.Node:
    interface = WmhDataSink(
        base_directory=str(staging), source_file=str(session.flair), check_hdr=False, **entities
    )
    return pe.Node(interface, name=f"ds_{name}", run_without_submitting=True)
