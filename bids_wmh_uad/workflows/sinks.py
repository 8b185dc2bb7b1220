"""The nodes that end a session's graph: names and sidecars in a staging tree, then everything is published at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.derivatives import IN_SPACES, OUTPUTS
from bids_wmh_uad.bids.sidecars import SPACE_TRANSFORMS, space_sidecars
from bids_wmh_uad.config import TEMPLATE
from bids_wmh_uad.interfaces.outputs import MoveToSpace, Publish
from bids_wmh_uad.interfaces.sinks import StageOutputs
from bids_wmh_uad.workflows import engine

FROM_FLAIR = (*IN_SPACES, *SPACE_TRANSFORMS.values())
"""Outputs that images in other spaces are made of."""


def stage_node(session: Session, staging: Path) -> pe.Node:
    """The node that gives each of a session's outputs its name, in the staging tree."""
    return pe.Node(StageOutputs(list(OUTPUTS), session=session, staging=str(staging)), name="stage")


def publish_node(staging: Path, output_dir: Path) -> pe.Node:
    """The node that moves what is staged to the output dataset, the summary last."""
    return pe.Node(Publish(staging=str(staging), output_dir=str(output_dir)), name=engine.PUBLISH)


def init_spaces_wf(session: Session, spaces: Sequence[str], bids_dir: Path, staging: Path) -> Workflow:
    """Build the graph that writes one session's probability and mask in other spaces than the FLAIR's.

    1. *to_...*: both images on the space's grid
    2. *stage_...*: their names and sidecars, in the staging tree

    Parameters
    ----------
    session : Session
    spaces : sequence of str
        Of `config.SPACES`, but for the FLAIR's.
    bids_dir : Path
        Root of the raw dataset.
    staging : Path
        A tree like the output dataset's.

    Returns
    -------
    Workflow
        With an ``inputnode``: the outputs of `FROM_FLAIR`; and an ``outputnode``: the ``files`` in the staging tree.
    """
    workflow = Workflow(name="spaces_wf")
    inputnode = pe.Node(niu.IdentityInterface(fields=list(FROM_FLAIR)), name="inputnode")
    outputnode = pe.Node(niu.IdentityInterface(fields=["files"]), name="outputnode")
    last = None
    for space in spaces:
        grid = {} if space == TEMPLATE else {"t1w": str(session.t1w)}
        move = pe.Node(MoveToSpace(**grid), name=f"to_{space}")
        stage = pe.Node(
            StageOutputs(
                IN_SPACES,
                session=session,
                space=space,
                staging=str(staging),
                sidecars=space_sidecars(session, bids_dir, space),
            ),
            name=f"stage_{space}",
        )
        workflow.connect([
            (inputnode, move, [(name, name) for name in IN_SPACES]),
            (inputnode, move, [(SPACE_TRANSFORMS[space], "transform")]),
            (move, stage, [(name, name) for name in IN_SPACES]),
        ])  # fmt: skip
        if last is not None:
            workflow.connect(last, "files", stage, "others")
        last = stage
    workflow.connect(last, "files", outputnode, "files")
    return workflow
