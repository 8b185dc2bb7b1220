"""The graph that writes a session's outputs: one data sink each, then everything is published at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.derivatives import (
    IMAGE_TYPES,
    IN_SPACES,
    OUTPUTS,
    TRANSFORMS,
    figure_path,
    output_path,
)
from bids_wmh_uad.bids.sidecars import SPACE_TRANSFORMS, space_sidecars
from bids_wmh_uad.config import SPACES, TEMPLATE
from bids_wmh_uad.interfaces.outputs import MoveToSpace, Publish
from bids_wmh_uad.interfaces.sinks import WmhDataSink
from bids_wmh_uad.workflows import engine

DESCRIBED = (*IMAGE_TYPES, *TRANSFORMS)
"""Outputs that have a sidecar."""
FROM_FLAIR = (*IN_SPACES, *SPACE_TRANSFORMS.values())
"""Outputs that images in other spaces are made of."""


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
        sidecar as ``<name>_meta`` where it has one, ``figures`` and their ``figure_names``, and ``others``, which lie in the
        staging tree already; and an ``outputnode``: what was ``published``.
    """
    workflow = Workflow(name="sinks_wf")
    sidecars = [f"{name}_meta" for name in DESCRIBED]
    inputnode = pe.Node(
        niu.IdentityInterface(fields=[*OUTPUTS, *sidecars, "figures", "figure_names", "others"]),
        name="inputnode",
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
    staged = pe.Node(niu.Merge(len(OUTPUTS) + 2), name="files", run_without_submitting=True)
    publish = publish_node(staging, output_dir)
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
        (inputnode, staged, [("others", f"in{len(OUTPUTS) + 2}")]),
        (staged, publish, [("out", "files")]),
        (publish, outputnode, [("written", "published")]),
    ])  # fmt: skip
    return workflow


def init_spaces_wf(session: Session, spaces: Sequence[str], bids_dir: Path, staging: Path) -> Workflow:
    """Build the graph that writes one session's probability and mask in other spaces than the FLAIR's.

    1. *to_...*: both images on the space's grid
    2. *ds_...*: their names and sidecars, in the staging tree

    Parameters
    ----------
    session : Session
    spaces : sequence of str
        Of `config.SPACES`, but for the FLAIR's.
    bids_dir : Path
        Root of the raw dataset.
    staging : Path
        As `init_sinks_wf` has it.

    Returns
    -------
    Workflow
        With an ``inputnode``: the outputs of `FROM_FLAIR`; and an ``outputnode``: the ``files`` in the staging tree.
    """
    workflow = Workflow(name="spaces_wf")
    inputnode = pe.Node(niu.IdentityInterface(fields=list(FROM_FLAIR)), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["files"]), name="outputnode")
    staged = pe.Node(niu.Merge(len(spaces) * len(IN_SPACES)), name="files", run_without_submitting=True)
    places = iter(range(1, 1 + len(spaces) * len(IN_SPACES)))
    for space in spaces:
        grid = {} if space == TEMPLATE else {"t1w": str(session.t1w)}
        move = pe.Node(MoveToSpace(**grid), name=f"to_{space}")
        workflow.connect([
            (inputnode, move, [(name, name) for name in IN_SPACES]),
            (inputnode, move, [(SPACE_TRANSFORMS[space], "transform")]),
        ])  # fmt: skip
        for name, meta in space_sidecars(session, bids_dir, space).items():
            sink = _sink_node(name, session, staging, space)
            sink.inputs.meta_dict = meta
            workflow.connect([
                (move, sink, [(name, "in_file")]),
                (sink, staged, [("out_file", f"in{next(places)}")]),
            ])  # fmt: skip
    workflow.connect(staged, "out", outputnode, "files")
    return workflow


def publish_node(staging: Path, output_dir: Path) -> pe.Node:
    """The node that moves what is staged to the output dataset."""
    return pe.Node(Publish(staging=str(staging), output_dir=str(output_dir)), name=engine.PUBLISH)


def _sink_node(name: str, session: Session, staging: Path, space: str = SPACES[0]) -> pe.Node:
    """The data sink of one output."""
    stored: dict[str, Any] = (
        {"compress": False, "data_dtype": IMAGE_TYPES[name]} if name in IMAGE_TYPES else {}
    )
    interface = WmhDataSink(
        output_path(Path(), session, name, space),
        base_directory=str(staging),
        source_file=str(session.flair),
        check_hdr=False,
        **stored,
    )
    ending = "" if space == SPACES[0] else f"_{space}"
    return pe.Node(interface, name=f"ds_{name}{ending}", run_without_submitting=True)
