"""The graph of one session on one page: every edge stands in :func:`init_session_wf`, as data flows.

::

    scans -> preprocess -+-> checks ------------------------+
                         +-> regions --+-> segment --+------+-> describe -> stage -> publish
                         +-> score ----+             +-> explain -> draw -----+
                                                     +-> finish --------------+
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import nipype.interfaces.utility as niu
import nipype.pipeline.engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.derivatives import IMAGE_TYPES, TRANSFORMS, other_spaces, output_path
from bids_wmh_uad.bids.sidecars import sidecar_one_class
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.interfaces.explain import ExplainModel
from bids_wmh_uad.interfaces.lesions import FindRegions, SegmentLesions
from bids_wmh_uad.interfaces.outputs import Describe, DrawFigures, FinishImages
from bids_wmh_uad.interfaces.quality import CheckScans
from bids_wmh_uad.interfaces.score import ScoreAnomaly
from bids_wmh_uad.models import load_decision, model_directory
from bids_wmh_uad.reports.methods import describe_method
from bids_wmh_uad.workflows import engine
from bids_wmh_uad.workflows.preprocess import DESCRIPTION, init_preprocess_wf, init_reuse_wf
from bids_wmh_uad.workflows.reuse import Preprocessed
from bids_wmh_uad.workflows.sinks import FROM_FLAIR, init_spaces_wf, publish_node, stage_node

Z_SCORES = {"flair_z": "flair", "t1w_z": "t1w"}
"""Where a step takes the preprocessed contrasts as z-scores: the preprocessing's names of them, and the step's."""


def init_participant_wf(graphs: Sequence[Workflow], config: RunConfig) -> Workflow:
    """Build the graph of several sessions side by side.

    Parameters
    ----------
    graphs : sequence of Workflow
        Of :func:`init_session_wf`.
    config : RunConfig
    """
    workflow = engine.top_workflow(config)
    workflow.add_nodes(graphs)
    return workflow


def init_session_wf(
    session: Session, config: RunConfig, digest: str, earlier: Preprocessed | None = None
) -> Workflow:
    """Build the graph of one session: two scans in, its published outputs out; call after :func:`engine.configure_nipype`.

    1. *preprocess_wf*: everything on the FLAIR's grid, made or read from an earlier run
    2. *checks*: are these a head's T1w and FLAIR, whole and aligned?
    3. *score*: the anomaly map
    4. *regions*: ventricles, cortex, posterior fossa, lobes
    5. *segment*: lesions, where they lie, how large they are
    6. *explain*: a sample of patches for the page, if the score uses the network
    7. *finish*: images on the FLAIR's own grid, transforms as ITK files
    8. *describe*: sidecars and summary; *draw*: figures
    9. *spaces_wf*: probability and mask in other spaces, if any was asked for
    10. *stage*: names; *publish*: all at once

    Parameters
    ----------
    session : Session
    config : RunConfig
    digest : str
        The model's; empty if the score uses none.
    earlier : Preprocessed, optional
        What an earlier run left (`reuse.find_preprocessed`): read instead of made again.

    Returns
    -------
    Workflow
        With an ``inputnode`` (``flair``, ``t1w``: set) and an ``outputnode`` (``published``).
    """
    config = _with_absolute_model(config)
    workflow = Workflow(name=session.workflow_name)
    n = _make_nodes(session, config, digest, earlier)
    workflow.__postdesc__ = describe_method(config.method, _spaces(session, config))
    workflow.connect([
        (n.inputnode, n.preprocess, _to("inputnode", "flair", "t1w")),
        # are these the right scans?
        (n.preprocess, n.checks, _from("outputnode", "flair", "t1w", "brain_mask", "gm", "wm", "template", "scaling", "overlap",
                                          "flair_stripped", "t1w_stripped", "flair_shift", "t1w_shift", "t1w_to_template")),
        (n.inputnode, n.checks, [("flair", "flair_scan"), ("t1w", "t1w_scan")]),
        # how unusual is each voxel?
        (n.preprocess, n.score, _from("outputnode", "brain_mask", "gm", "flair_to_t1w", "t1w_to_template", **Z_SCORES)),
        # where are the ventricles, and where the cortex?
        (n.preprocess, n.regions, _from("outputnode", "brain_mask", "gm", "flair_to_t1w", "t1w_to_template", **Z_SCORES)),
        # which voxels are lesions?
        (n.preprocess, n.segment, _from("outputnode", "brain_mask", "gm", **Z_SCORES)),
        (n.score, n.segment, [("anomaly", "anomaly"), ("evidence", "evidence")]),
        (n.regions, n.segment, [("regions", "regions"), ("lobes", "lobes")]),
        # images as the user's FLAIR has them
        (n.inputnode, n.finish, [("flair", "source")]),
        (n.preprocess, n.finish, _from("outputnode", "flair", "t1w", "flair_to_t1w", "t1w_to_template", brain_mask="brain")),
        (n.score, n.finish, [(name, name) for name in ("anomaly", "evidence", "brightness")]),
        (n.segment, n.finish, [("probability", "probability"), ("lesions", "lesions"), ("rejected", "rejected")]),
        (n.regions, n.finish, [("regions", "regions"), ("lobes", "lobes")]),
        # sidecars and the summary
        (n.preprocess, n.describe, _from("outputnode", "scaling", "overlap", "brain_mask", "flair_stripped", "t1w_stripped",
                                            "flair_shift", "t1w_shift")),
        (n.checks, n.describe, [("numbers", "checks"), ("warnings", "checks_warnings")]),
        (n.regions, n.describe, [("warnings", "regions_warnings")]),
        (n.score, n.describe, [("device", "score_device"), ("uncovered", "uncovered"), ("warnings", "score_warnings")]),
        (n.segment, n.describe, [("measures", "measures"), ("warnings", "segment_warnings")]),
        # figures of the page
        (n.preprocess, n.draw, _from("outputnode", "flair", "t1w", "template", brain_mask="brain")),
        (n.score, n.draw, [("anomaly", "anomaly")]),
        (n.segment, n.draw, [("lesions", "lesions"), ("rejected", "rejected"), ("measures", "measures")]),
        # names, sidecars, publication
        (n.finish, n.stage, [(name, name) for name in (*IMAGE_TYPES, *TRANSFORMS)]),
        (n.segment, n.stage, [("table", "table"), ("rejected_table", "rejected_table")]),
        (n.regions, n.stage, [("regions_table", "regions_table"), ("lobes_table", "lobes_table")]),
        (n.describe, n.stage, [("summary", "summary"), ("sidecars", "sidecars")]),
        (n.draw, n.stage, [("figures", "figures"), ("names", "figure_names")]),
        (n.stage, n.publish, [("files", "files")]),
        (n.publish, n.outputnode, [("written", "published")]),
    ])  # fmt: skip
    _connect_what_is_on_demand(workflow, n)
    return workflow


def _connect_what_is_on_demand(workflow: Workflow, n: _Nodes) -> None:
    if n.spaces is not None:
        workflow.connect([
            # the same lesions where else they were asked for
            (n.finish, n.spaces, _to("inputnode", *FROM_FLAIR)),
            (n.spaces, n.stage, [("outputnode.files", "others")]),
        ])  # fmt: skip
    if n.explain is not None:
        workflow.connect([
            # what does the network see?
            (n.preprocess, n.explain, _from("outputnode", "brain_mask", "gm", "wm", **Z_SCORES)),
            (n.regions, n.explain, [("regions", "regions")]),
            (n.segment, n.explain, [("lesions", "lesions")]),
            (n.explain, n.draw, [("sample", "sample")]),
        ])  # fmt: skip


def init_finished_wf(session: Session, config: RunConfig) -> Workflow:
    """Build the graph of a session that an earlier run finished, but not in all the spaces that are asked for now.

    It starts from what that run published, and writes nothing but those images.

    Parameters
    ----------
    session : Session
    config : RunConfig

    Returns
    -------
    Workflow
        With an ``inputnode`` (those images and transforms: set) and an ``outputnode`` (``published``).
    """
    workflow = Workflow(name=session.workflow_name)
    spaces = _spaces(session, config)
    workflow.__desc__ = DESCRIPTION + describe_method(config.method, spaces)
    staging = engine.session_directory(session, config) / engine.STAGING
    moved = init_spaces_wf(session, spaces, config.bids_dir, staging)
    inputnode = pe.Node(niu.IdentityInterface(fields=list(FROM_FLAIR)), name="inputnode")
    inputnode.inputs.trait_set(
        **{name: str(output_path(config.output_dir, session, name)) for name in FROM_FLAIR}
    )
    publish = publish_node(staging, config.output_dir)
    outputnode = pe.Node(niu.IdentityInterface(fields=["published"]), name="outputnode")
    workflow.connect([
        (inputnode, moved, _to("inputnode", *FROM_FLAIR)),
        (moved, publish, [("outputnode.files", "files")]),
        (publish, outputnode, [("written", "published")]),
    ])  # fmt: skip
    return workflow


def _spaces(session: Session, config: RunConfig) -> tuple[str, ...]:
    return other_spaces(config.output_dir, session, config.running.output_spaces)


def _with_absolute_model(config: RunConfig) -> RunConfig:
    """Settings whose model every step finds: steps do not run where the program was started."""
    method = config.method
    directory = model_directory(method.model) if method.parameters.uses_network else None
    if directory is None or directory.is_absolute():
        return config
    return replace(config, method=replace(method, model=str(directory.absolute())))


@dataclass(frozen=True)
class _Nodes:
    """The steps of a session, in the order of :func:`init_session_wf`."""

    inputnode: pe.Node
    preprocess: Workflow
    checks: pe.Node
    score: pe.Node
    regions: pe.Node
    segment: pe.Node
    explain: pe.Node | None
    finish: pe.Node
    describe: pe.Node
    draw: pe.Node
    spaces: Workflow | None
    stage: pe.Node
    publish: pe.Node
    outputnode: pe.Node


def _make_nodes(session: Session, config: RunConfig, digest: str, earlier: Preprocessed | None) -> _Nodes:
    """Make a session's steps, each with the memory and threads that it takes."""
    inputnode = pe.Node(niu.IdentityInterface(fields=["flair", "t1w"]), name="inputnode")
    inputnode.inputs.trait_set(flair=str(session.flair), t1w=str(session.t1w))
    staging = engine.session_directory(session, config) / engine.STAGING
    spaces = _spaces(session, config)
    return _Nodes(
        inputnode=inputnode,
        preprocess=init_preprocess_wf(config) if earlier is None else init_reuse_wf(earlier),
        checks=pe.Node(CheckScans(), name="checks"),
        score=_score_node(config, digest),
        regions=pe.Node(FindRegions(), name="regions"),
        segment=_segment_node(config),
        explain=_explain_node(config, digest),
        finish=pe.Node(FinishImages(), name="finish"),
        describe=_describe_node(session, config, digest),
        draw=pe.Node(DrawFigures(label=session.label, prefix=session.prefix), name="draw"),
        spaces=init_spaces_wf(session, spaces, config.bids_dir, staging) if spaces else None,
        stage=stage_node(session, staging),
        publish=publish_node(staging, config.output_dir),
        outputnode=pe.Node(niu.IdentityInterface(fields=["published"]), name="outputnode"),
    )


def _from(node: str, *same: str, **renamed: str) -> list[tuple[str, str]]:
    """Edges that leave a sub-graph by its `node`: fields of the same name, then renamed ones."""
    return [(f"{node}.{name}", name) for name in same] + [
        (f"{node}.{name}", other) for name, other in renamed.items()
    ]


def _to(node: str, *same: str, **renamed: str) -> list[tuple[str, str]]:
    """Edges that enter a sub-graph by its `node`: fields of the same name, then renamed ones."""
    return [(name, f"{node}.{name}") for name in same] + [
        (name, f"{node}.{other}") for name, other in renamed.items()
    ]


def _score_node(config: RunConfig, digest: str) -> pe.Node:
    method, performance = config.method, config.performance
    return pe.Node(
        ScoreAnomaly(
            model=method.model, model_digest=digest, paradigm=method.paradigm,
            parameters=method.parameters.of_score(), seed=method.random_seed,
            device=performance.device, threads=performance.omp_nthreads,
        ),
        name="score", n_procs=performance.omp_nthreads,
    )  # fmt: skip


def _segment_node(config: RunConfig) -> pe.Node:
    method = config.method
    decision = load_decision(method.model) if method.parameters.uses_network else LesionDecision()
    return pe.Node(
        SegmentLesions(parameters=method.parameters.of_mask(), decision=asdict(decision)),
        name="segment",
    )


def _explain_node(config: RunConfig, digest: str) -> pe.Node | None:
    """The step that shows the network; None where none takes part."""
    method = config.method
    if not method.parameters.uses_network:
        return None
    return pe.Node(
        ExplainModel(model=method.model, model_digest=digest, seed=method.random_seed),
        name="explain",
    )


def _describe_node(session: Session, config: RunConfig, digest: str) -> pe.Node:
    method = config.method
    return pe.Node(
        Describe(
            session=session,
            method=method,
            bids_dir=str(config.bids_dir),
            model_digest=digest,
            one_class=sidecar_one_class(method),
        ),
        name="describe",
    )
