"""The graph that writes a session's outputs: one data sink each, then everything is published at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.derivatives import IMAGE_TYPES, OUTPUTS, TRANSFORMS, figure_path, output_path
from bids_wmh_uad.interfaces.outputs import Publish
from bids_wmh_uad.interfaces.sinks import WmhDataSink
from bids_wmh_uad.workflows import engine

DESCRIBED = (*IMAGE_TYPES, *TRANSFORMS)
"""Outputs that have a sidecar."""


def init_sinks_wf(session: Session, staging: Path, output_dir: Path) -> Workflow:
    """Build the graph that writes one session's outputs.

    1. *ds_...*: each file gets its name, from `derivatives.output_path`, and its sidecar beside it, in a staging tree
    2. *publish*: the staged files move to the output dataset, the summary last

    Parameters
    ----------
    session : Session
        Its FLAIR gives the outputs' names.
    staging : Path
        A tree like the output dataset's; empty.
    output_dir : Path
        The output dataset.

    Returns
    -------
    Workflow
        With an ``inputnode``: the file of each output by its name in `derivatives.OUTPUTS`, its
        sidecar as ``<name>_meta`` where it has one, ``figures`` and their ``figure_names``; and an
        ``outputnode``: what was ``published``.
    """
    workflow = Workflow(name="sinks_wf")
    sidecars = [f"{name}_meta" for name in DESCRIBED]
    inputnode = pe.Node(
        niu.IdentityInterface(fields=[*OUTPUTS, *sidecars, "figures", "figure_names"]), name="inputnode"
    )
    outputnode = pe.Node(niu.IdentityInterface(fields=["published"]), name="outputnode")
    sinks = {name: _sink_node(name, session, staging) for name in OUTPUTS}
    figures = pe.MapNode(
        WmhDataSink(
            figure_path(Path(), session, "{desc}"),
            base_directory=str(staging),
            source_file=str(session.flair),
        ),
        iterfield=["in_file", "desc"],
        name="ds_figures",
        run_without_submitting=True,
    )
    staged = pe.Node(niu.Merge(len(OUTPUTS) + 1), name="files", run_without_submitting=True)
    publish = pe.Node(Publish(staging=str(staging), output_dir=str(output_dir)), name=engine.PUBLISH)
    for number, (name, sink) in enumerate(sinks.items(), start=1):
        workflow.connect([
            (inputnode, sink, [(name, "in_file")]),
            (sink, staged, [("out_file", f"in{number}")]),
        ])  # fmt: skip
    for name in DESCRIBED:
        workflow.connect(inputnode, f"{name}_meta", sinks[name], "meta_dict")
    workflow.connect([
        (inputnode, figures, [("figures", "in_file"), ("figure_names", "desc")]),
        (figures, staged, [("out_file", f"in{len(OUTPUTS) + 1}")]),
        (staged, publish, [("out", "files")]),
        (publish, outputnode, [("written", "published")]),
    ])  # fmt: skip
    return workflow


def _sink_node(name: str, session: Session, staging: Path) -> pe.Node:
    """The data sink of one output."""
    stored: dict[str, Any] = (
        {"compress": False, "data_dtype": IMAGE_TYPES[name]} if name in IMAGE_TYPES else {}
    )
    interface = WmhDataSink(
        output_path(Path(), session, name),
        base_directory=str(staging),
        source_file=str(session.flair),
        check_hdr=False,
        **stored,
    )
    return pe.Node(interface, name=f"ds_{name}", run_without_submitting=True)
