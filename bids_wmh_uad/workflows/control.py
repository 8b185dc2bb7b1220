"""The graph of one control of the train level: preprocessed, then brought to the network's grid."""

from __future__ import annotations

from collections.abc import Sequence

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.references import Reference
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.interfaces.controls import ConfirmControl, PrepareControl
from bids_wmh_uad.workflows import engine
from bids_wmh_uad.workflows.preprocess import init_preprocess_wf, init_reuse_wf
from bids_wmh_uad.workflows.reuse import Preprocessed


def init_train_wf(graphs: Sequence[Workflow], config: RunConfig) -> Workflow:
    """Build the graph of several controls side by side.

    Parameters
    ----------
    graphs : sequence of Workflow
        Of :func:`init_control_wf`.
    config : RunConfig
    """
    workflow = engine.top_workflow(config)
    workflow.add_nodes(graphs)
    return workflow


def init_control_wf(
    session: Session, config: RunConfig, lesions: tuple[str, Reference | None], earlier: Preprocessed | None
) -> Workflow:
    """Build the graph of one control; call after :func:`engine.configure_nipype`.

    1. *preprocess_wf*: everything on the FLAIR's grid, made or read from an earlier run
    2. *prepare*: the network's input, and where its patches may lie
    3. *confirm*: that this run, and no earlier one, vouches for it

    Parameters
    ----------
    session : Session
    config : RunConfig
    lesions : str and Reference or None
        Which mask of what must not be learnt, from `reuse.find_lesions`.
    earlier : Preprocessed or None
        What an earlier run left.

    Returns
    -------
    Workflow
        With an ``inputnode`` (``flair``, ``t1w``: set) and an ``outputnode`` (``control``).
    """
    workflow = Workflow(name=session.workflow_name)
    inputnode = pe.Node(niu.IdentityInterface(fields=["flair", "t1w"]), name="inputnode")
    inputnode.inputs.trait_set(flair=str(session.flair), t1w=str(session.t1w))
    outputnode = pe.Node(niu.IdentityInterface(fields=["control"]), name="outputnode")
    preprocess = init_preprocess_wf(config) if earlier is None else init_reuse_wf(earlier)
    kind, mask = lesions
    prepare = pe.Node(PrepareControl(lesions_kind=kind), name=engine.PREPARE)
    confirm = pe.Node(ConfirmControl(run=config.run_uuid), name=engine.CONFIRM, mem_gb=0.1)
    if mask is not None:
        prepare.inputs.trait_set(
            lesions=str(mask.path),
            lesions_in_t1w=mask.in_t1w_space,
            resample=config.selection.resample_reference and mask.may_be_resampled,
            remedy=mask.remedy,
        )
    workflow.connect([
        (inputnode, preprocess, [("flair", "inputnode.flair"), ("t1w", "inputnode.t1w")]),
        (inputnode, prepare, [("flair", "scan")]),
        (preprocess, prepare, [
            ("outputnode.flair_z", "flair"), ("outputnode.t1w_z", "t1w"),
            ("outputnode.brain_mask", "brain_mask"), ("outputnode.flair_to_t1w", "flair_to_t1w"),
            ("outputnode.t1w_to_template", "t1w_to_template"),
        ]),
        (prepare, confirm, [("out_dir", "control")]),
        (prepare, outputnode, [("out_dir", "control")]),
    ])  # fmt: skip
    return workflow
