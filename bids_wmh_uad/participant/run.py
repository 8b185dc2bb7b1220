"""The participant level: one graph per session, and the run around them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Any

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session, UnusableSession, find_sessions
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.errors import EXIT_OK, EXIT_SESSION_FAILED, NOT_STARTED, SESSION_CRASHED, WmhUadError
from bids_wmh_uad.files import dump_json, write_atomically
from bids_wmh_uad.participant.reports import write_reports
from bids_wmh_uad.reports.methods import describe_method
from bids_wmh_uad.workflows import engine

LOGGER = logging.getLogger("bids_wmh_uad")
ALREADY_DONE = "%s: finished before, nothing to do"
FAILED = "%s: FAILED. %s"
LAST_NODE = "publish"


def run_participant(config: RunConfig) -> int:
    """Process every selected session.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    int
        0 if every session is done; 1 if some failed; the one common exit code of
        sessions none of which could be started.

    Raises
    ------
    WmhUadError
        If the dataset, the selection, the model or the output directory cannot be used.
    """
    from bids_wmh_uad.models import model_digest
    from bids_wmh_uad.workflows.reuse import datasets

    sessions, unusable = find_sessions(config.bids_dir, config.selection)
    digest = model_digest(config.method.model, config.method.paradigm)
    datasets(config)
    engine.require_device(config.performance.device)
    if config.running.boilerplate_only:
        if not sessions:
            raise unusable[0].error
        write_citation(init_participant_wf(sessions[:1], config, digest), config.output_dir)
        return EXIT_OK
    derivatives.write_dataset_files(config.output_dir, config.bids_dir)
    todo = [
        session
        for session in sessions
        if not derivatives.is_finished(config.output_dir, session, config.method, digest)
    ]
    for session in sessions:
        if session not in todo:
            LOGGER.info(ALREADY_DONE, session.label)
    failures = {entry.label: str(entry.error) for entry in unusable}
    if todo:
        failures |= run_sessions(todo, config, digest)
    report_failures(config, sessions, unusable, failures)
    subjects = {*(session.subject for session in sessions), *(entry.subject for entry in unusable)}
    write_reports(config, sorted(subjects), failures)
    if not sessions:
        codes = {entry.error.exit_code for entry in unusable}
        return codes.pop() if len(codes) == 1 else EXIT_SESSION_FAILED
    return EXIT_SESSION_FAILED if failures else EXIT_OK


def run_sessions(sessions: Sequence[Session], config: RunConfig, digest: str) -> dict[str, str]:
    """Run the graphs of `sessions`.

    Returns
    -------
    dict
        Why a session failed, by its label; empty if all are done.
    """
    start = time()
    labels = {session.workflow_name: session.label for session in sessions}
    progress = engine.Progress(labels, LAST_NODE, terminal=sys.stderr.isatty())
    failures: dict[str, str] = {}
    for batch in engine.batches(sessions, config):
        if failures and config.running.stop_on_first_crash:
            failures |= {session.label: NOT_STARTED for session in batch}
        else:
            failures |= _run_batch(batch, config, digest, progress)
    done = len(sessions) - len(failures)
    LOGGER.info("%d of %d sessions done in %.0f s", done, len(sessions), time() - start)
    return failures


def _run_batch(
    sessions: Sequence[Session], config: RunConfig, digest: str, progress: engine.Progress
) -> dict[str, str]:
    start = time()
    workflow = init_participant_wf(sessions, config, digest)
    write_citation(workflow, config.output_dir)
    error: Exception | None = None
    try:
        workflow.run(**engine.plugin_settings(config, progress))
    except WmhUadError:
        raise
    except Exception as raised:  # noqa: BLE001 (how nipype says that nodes failed depends on the plugin)
        error = raised
    root = Path(config.running.work_dir) / workflow.name
    engine.append_stages(
        config.log_dir / "stages.tsv", [root / session.workflow_name for session in sessions], start
    )
    failures = _failures(sessions, config, digest, error)
    if config.running.clean_workdir:
        for session in sessions:
            if session.label not in failures:
                derivatives.remove_tree(root / session.workflow_name)
    return failures


def _failures(
    sessions: Sequence[Session], config: RunConfig, digest: str, error: Exception | None
) -> dict[str, str]:
    """Why each session that is not finished is not: its first crash, else the run's own error."""
    crashes = engine.read_crashes(config.log_dir)
    failures = {}
    for session in sessions:
        own = [crash for crash in crashes if session.workflow_name in crash.node.split(".")]
        if derivatives.is_finished(config.output_dir, session, config.method, digest):
            continue
        fallback = SESSION_CRASHED.format(
            node=session.label, reason=error or "unknown error", crashfile=config.log_dir
        )
        failures[session.label] = own[0].reason if own else fallback
    return failures


def init_participant_wf(sessions: Sequence[Session], config: RunConfig, digest: str) -> Any:
    """Build the graph of all sessions; call after :func:`engine.set_environment`."""
    engine.configure_nipype(config)
    from niworkflows.engine.workflows import LiterateWorkflow as Workflow

    workflow = Workflow(name=engine.workflow_name("participant"), base_dir=str(config.running.work_dir))
    for session in sessions:
        workflow.add_nodes(
            [init_session_wf(session, config, digest, Path(workflow.base_dir) / workflow.name)]
        )
    return workflow


def init_session_wf(session: Session, config: RunConfig, digest: str, root: Path) -> Any:
    """Build the graph of one session: preprocess, score, segment, describe, draw, publish.

    Parameters
    ----------
    session : Session
    config : RunConfig
    digest : str
        The model's, so that cached scores follow the model's content.
    root : Path
        The working directory that the session's own will be in.
    """
    import nipype.pipeline.engine as pe
    from niworkflows.engine.workflows import LiterateWorkflow as Workflow

    from bids_wmh_uad.interfaces.lesions import SegmentLesions
    from bids_wmh_uad.interfaces.regions import connect_regions
    from bids_wmh_uad.interfaces.score import ScoreAnomaly
    from bids_wmh_uad.workflows.preprocess import init_preprocess_wf
    from bids_wmh_uad.workflows.reuse import datasets, find_preprocessed

    method, performance = config.method, config.performance
    directory = root / session.workflow_name
    if config.running.clean_workdir:
        derivatives.remove_tree(directory)
    workflow = Workflow(name=session.workflow_name)
    workflow.__postdesc__ = describe_method(method)
    earlier = find_preprocessed(session, datasets(config), method.random_seed)
    preprocess = init_preprocess_wf(session, config, earlier)
    score = pe.Node(
        ScoreAnomaly(
            model=method.model, model_digest=digest, paradigm=method.paradigm,
            parameters=method.parameters.of_score(), seed=method.random_seed,
            device=performance.device, threads=performance.omp_nthreads,
        ),
        name="score", mem_gb=2.0, n_procs=performance.omp_nthreads,
    )  # fmt: skip
    segment = pe.Node(
        SegmentLesions(parameters=method.parameters.of_mask()), name="segment", mem_gb=1.0
    )  # fmt: skip
    workflow.connect([
        (preprocess, score, [("outputnode.flair_z", "flair"), ("outputnode.t1w_z", "t1w"),
                             ("outputnode.brain_mask", "brain_mask"), ("outputnode.gm", "gm"),
                             ("outputnode.flair_to_t1w", "flair_to_t1w"),
                             ("outputnode.t1w_to_template", "t1w_to_template")]),
        (score, segment, [("anomaly", "anomaly")]),
        (preprocess, segment, [("outputnode.brain_mask", "brain_mask"), ("outputnode.gm", "gm")]),
    ])  # fmt: skip
    connect_regions(workflow, preprocess, segment)
    _connect_outputs(workflow, session, config, digest, directory)
    return workflow


def _connect_outputs(
    workflow: Any, session: Session, config: RunConfig, digest: str, directory: Path
) -> None:
    """Add what happens to the results: native grids, sidecars, figures, data sinks, publication."""
    import nipype.interfaces.utility as niu
    import nipype.pipeline.engine as pe

    from bids_wmh_uad.bids.sidecars import sidecar_one_class
    from bids_wmh_uad.interfaces.explain import connect_explain
    from bids_wmh_uad.interfaces.outputs import Describe, DrawFigures, FinishImages, Publish
    from bids_wmh_uad.interfaces.quality import connect_checks
    from bids_wmh_uad.interfaces.sinks import connect_sinks

    preprocess, score, segment, regions = (
        workflow.get_node(name) for name in ("preprocess_wf", "score", "segment", "regions")
    )
    finish = pe.Node(FinishImages(source=str(session.flair)), name="finish", mem_gb=1.0)
    describe = pe.Node(
        Describe(
            session=session, method=config.method, bids_dir=str(config.bids_dir), model_digest=digest,
            one_class=sidecar_one_class(config.method),
        ),
        name="describe", mem_gb=0.2,
    )  # fmt: skip
    draw = pe.Node(DrawFigures(label=session.label), name="draw", mem_gb=1.0)
    staging = directory / "staging"
    derivatives.remove_tree(staging)
    files = pe.Node(niu.Merge(len(derivatives.OUTPUTS) + 1), name="files", run_without_submitting=True)
    publish = pe.Node(
        Publish(staging=str(staging), output_dir=str(config.output_dir)), name=LAST_NODE, mem_gb=0.2
    )
    workflow.connect([
        (preprocess, finish, [(f"outputnode.{name}", name) for name in
                              ("flair", "t1w", "flair_to_t1w", "t1w_to_template")]),
        (preprocess, finish, [("outputnode.brain_mask", "brain")]),
        (score, finish, [("anomaly", "anomaly")]),
        (segment, finish, [("probability", "probability"), ("lesions", "lesions")]),
        (regions, finish, [("regions", "regions")]),
        (regions, describe, [("warnings", "region_warnings")]),
        (preprocess, describe, [(f"outputnode.{name}", name) for name in
                                ("scaling", "overlap", "brain_mask", "flair_stripped", "t1w_stripped")]),
        (score, describe, [("device", "score_device"), ("warnings", "score_warnings"),
                           ("uncovered", "uncovered")]),
        (segment, describe, [("measures", "measures")]),
        (preprocess, draw, [(f"outputnode.{name}", name) for name in ("flair", "t1w", "template")]),
        (preprocess, draw, [("outputnode.brain_mask", "brain")]),
        (score, draw, [("anomaly", "anomaly")]),
        (segment, draw, [("lesions", "lesions"), ("measures", "measures")]),
        (files, publish, [("out", "files")]),
    ])  # fmt: skip
    connect_checks(workflow)
    connect_explain(workflow, digest, config.method.model, config.method.random_seed)
    connect_sinks(workflow, session, staging)


def report_failures(
    config: RunConfig,
    sessions: Sequence[Session],
    unusable: Sequence[UnusableSession],
    failures: dict[str, str],
) -> None:
    """Say why sessions failed, and leave the reason where the group level finds it.

    A session that has a result from an earlier run keeps it untouched.
    """
    for session in sessions:
        path = derivatives.failure_path(config.output_dir, session.subject, session.session)
        result = derivatives.output_path(config.output_dir, session, "summary")
        if session.label not in failures:
            path.unlink(missing_ok=True)
        elif not result.is_file():
            _write_failure(path, session.subject, session.session, failures[session.label])
    for entry in unusable:
        path = derivatives.failure_path(config.output_dir, entry.subject, entry.session)
        if not list(path.parent.glob(f"*_{derivatives.OUTPUTS['summary']}")):
            _write_failure(path, entry.subject, entry.session, failures[entry.label])
    for label, reason in sorted(failures.items()):
        LOGGER.error(FAILED, label, reason)


def _write_failure(path: Path, subject: str, session: str | None, reason: str) -> None:
    content = {
        "participant_id": f"sub-{subject}",
        "session_id": f"ses-{session}" if session else "n/a",
        "status": "failed",
        "reason": reason,
    }
    write_atomically(path, dump_json(content))


def write_citation(workflow: Any, output_dir: Path) -> None:
    """Write the methods text to ``CITATION.md``, and its references to ``CITATION.bib`` too."""
    from bids_wmh_uad.reports.methods import bibliography, methods_text

    session = workflow.list_node_names()[0].split(".")[0]
    description = workflow.get_node(session).visit_desc()
    write_atomically(output_dir / "CITATION.md", methods_text(description).encode())
    write_atomically(output_dir / "CITATION.bib", bibliography(description).encode())
