"""The participant level: which sessions are to be done, their graphs, and what is said of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import FailedSession, Session, find_sessions
from bids_wmh_uad.bids.status import ALREADY_DONE as ALREADY
from bids_wmh_uad.bids.status import DONE, FAILED, StatusTable
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.environment import refusal
from bids_wmh_uad.errors import (
    EXIT_OK,
    EXIT_SESSION_FAILED,
    NOT_FINISHED,
    STOPPED_EARLY,
    BusyError,
    CannotCreateError,
    SessionError,
    StorageError,
    TemporaryError,
    WmhUadError,
)
from bids_wmh_uad.files import STORAGE_FULL, write_atomically
from bids_wmh_uad.models import load_decision, load_model, load_normality, model_digest
from bids_wmh_uad.participant.claims import claim
from bids_wmh_uad.participant.failures import record_failures
from bids_wmh_uad.participant.reports import write_reports
from bids_wmh_uad.participant.stages import append_stages
from bids_wmh_uad.workflows import engine, memory

LOGGER = logging.getLogger("bids_wmh_uad")
ALREADY_DONE = "%s: finished before, nothing to do"
DONE_ELSEWHERE = "%s: finished meanwhile by another process"
PLAIN_FORMS = (".md", ".bib")
"""Forms of the methods text that need no other program to be read."""
STEP_FAILED = "The step {node} failed: a crash file beside this table says why."
WHOLE_RUN = frozenset({CannotCreateError.exit_code, StorageError.exit_code, TemporaryError.exit_code})
"""Codes of what is wrong with the machine rather than with a session: the run's, if all that failed failed for it."""


def run_participant(config: RunConfig) -> int:
    """Process every selected session.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    int
        0 if every session is done; 1 if some failed; the one common exit code of
        sessions none of which could be started, or of all that failed where it is the machine's (`WHOLE_RUN`).

    Raises
    ------
    WmhUadError
        If the dataset, the selection, the model or the output directory cannot be used.
    """
    from bids_wmh_uad.workflows.reuse import datasets

    sessions, failed = find_sessions(config.bids_dir, config.selection)
    method = config.method
    digest = model_digest(method.model, method.paradigm) if method.parameters.uses_network else ""
    datasets(config)
    engine.require_device(config.performance.device)
    if config.running.boilerplate_only:
        if not sessions:
            raise failed[0].error
        write_citation(_session_graphs(sessions[:1], config, digest)[0], config)
        return EXIT_OK
    derivatives.write_dataset_files(config.output_dir, config.bids_dir)
    table = StatusTable(config.log_dir / "status.tsv", sessions, failed)
    try:
        table.write()
        failed = [*failed, *_run_unfinished(sessions, config, digest, table)]
        record_failures(config.output_dir, sessions, failed)
        not_compared = _compare(config, [*sessions, *failed], table)
    finally:  # Ctrl-C, a full disk: what has not ended never will
        table.interrupt()
        LOGGER.info("Sessions (%s):\n%s", table.path, "\n".join(table.summary()))
    busy = {entry.label for entry in failed if isinstance(entry.error, BusyError)}
    known: list[Session | FailedSession] = [*sessions, *failed]
    subjects = {item.subject for item in known if item.label not in busy}
    write_reports(config, sorted(subjects), failed)
    return _exit_code(sessions, failed) or (EXIT_SESSION_FAILED if not_compared else EXIT_OK)


def _compare(
    config: RunConfig, known: Sequence[Session | FailedSession], table: StatusTable
) -> Sequence[WmhUadError]:
    """What changed between each participant's sessions, if that was asked for; what went wrong."""
    if not config.running.longitudinal:
        return ()
    from bids_wmh_uad.participant.change import run_change

    return run_change(config, sorted({item.subject for item in known}), table)


def _run_unfinished(
    sessions: Sequence[Session], config: RunConfig, digest: str, table: StatusTable
) -> list[FailedSession]:
    """Run what an earlier run did not finish, if it fits into memory; what failed."""
    todo = [session for session in sessions if not _is_finished(session, config, digest)]
    unfinished = {session.label for session in todo}
    done = [session.label for session in sessions if session.label not in unfinished]
    for label in done:
        LOGGER.info(ALREADY_DONE, label)
    table.end(dict.fromkeys(done, ALREADY))
    too_large = [failed for session in todo if (failed := memory.refuse_too_large(session, config))]
    table.fail(too_large)
    if todo and config.method.parameters.uses_network:
        _require_usable(config.method.model, config.method.paradigm)
    refused = {entry.label for entry in too_large}
    todo = [session for session in todo if session.label not in refused]
    return [*too_large, *(run_sessions(todo, config, digest, table) if todo else ())]


def _require_usable(model: str, paradigm: str) -> None:
    """Load all of a model, and let it go: what is wrong with it is said before any work."""
    network, _ = load_model(model)
    load_decision(model, network.latent_size)
    load_normality(model, paradigm)


def _exit_code(sessions: Sequence[Session], failed: Sequence[FailedSession]) -> int:
    codes = {entry.error.exit_code for entry in failed}
    if len(codes) == 1 and (not sessions or codes <= WHOLE_RUN):
        return codes.pop()
    return EXIT_SESSION_FAILED if failed else EXIT_OK


def _is_finished(session: Session, config: RunConfig, digest: str) -> bool:
    spaces = derivatives.other_spaces(config.output_dir, session, config.running.output_spaces)
    return derivatives.is_finished(config.output_dir, session, config.method, digest, spaces)


def run_sessions(
    sessions: Sequence[Session], config: RunConfig, digest: str, table: StatusTable
) -> list[FailedSession]:
    """Run the graphs of `sessions`; those that failed, and why. The table follows each as it ends."""
    start = monotonic()
    labels = {session.workflow_name: session.label for session in sessions}
    watched = sys.stderr is not None and sys.stderr.isatty()
    progress = engine.Progress(
        labels, engine.PUBLISH, terminal=watched, ended=partial(follow, table)
    )  # nipype pickles it
    failed: list[FailedSession] = []
    for batch in engine.batches(sessions, config):
        broken = any(not isinstance(entry.error, BusyError) for entry in failed)
        if broken and config.running.stop_on_first_crash:
            ended = [session.failed(SessionError(STOPPED_EARLY)) for session in batch]
        else:
            ended = _run_batch(batch, config, digest, progress)
        left = {entry.label for entry in ended}
        table.end({session.label: DONE for session in batch if session.label not in left})
        table.fail(ended)
        failed += ended
    elsewhere = _done_elsewhere(failed, sessions, config, digest)
    table.end(dict.fromkeys(elsewhere, ALREADY))
    failed = [entry for entry in failed if entry.label not in elsewhere]
    done = len(sessions) - len(failed)
    LOGGER.info("%d of %d sessions done in %.0f s", done, len(sessions), monotonic() - start)
    return failed


def _done_elsewhere(
    failed: Sequence[FailedSession], sessions: Sequence[Session], config: RunConfig, digest: str
) -> set[str]:
    """Labels of what another process worked on, and has finished."""
    busy = {entry.label for entry in failed if isinstance(entry.error, BusyError)}
    done = {item.label for item in sessions if item.label in busy and _is_finished(item, config, digest)}
    for label in sorted(done):
        LOGGER.info(DONE_ELSEWHERE, label)
    return done


def follow(table: StatusTable, label: str, broken: str) -> None:
    """Say in the table that a session ended: the crash file, and with it the reason, comes later.

    Parameters
    ----------
    table : StatusTable
    label : str
    broken : str
        The step that failed, if one did.
    """
    table.end({label: FAILED if broken else DONE}, STEP_FAILED.format(node=broken) if broken else "n/a")


def _run_batch(
    sessions: Sequence[Session], config: RunConfig, digest: str, progress: engine.Progress
) -> list[FailedSession]:
    with claim(sessions, config) as (mine, others):
        todo = [session for session in mine if not _is_finished(session, config, digest)]
        for session in mine:
            if session not in todo:
                LOGGER.info(DONE_ELSEWHERE, session.label)
        return others + (_run_graphs(todo, config, digest, progress) if todo else [])


def _run_graphs(
    sessions: Sequence[Session], config: RunConfig, digest: str, progress: engine.Progress
) -> list[FailedSession]:
    from bids_wmh_uad.workflows.session import init_participant_wf

    start, stages = time(), config.log_dir / "stages.tsv"
    directories = [engine.session_directory(session, config) for session in sessions]
    graphs = _session_graphs(sessions, config, digest)
    write_citation(graphs[0], config)
    if config.running.write_graph:
        engine.draw_graph(graphs[0], config.log_dir)
    error: Exception | None = None
    try:
        init_participant_wf(graphs, config).run(**engine.plugin_settings(config, progress, sessions))
    except WmhUadError:
        raise
    except Exception as raised:  # how nipype says that nodes failed depends on the plugin
        if isinstance(raised, OSError) and raised.errno in STORAGE_FULL:
            raise  # not even the crash could be written
        LOGGER.debug("", exc_info=True)
        error = raised
    except BaseException:  # stopped: the table has what was done all the same
        with suppress(OSError):
            append_stages(stages, directories, start)
        raise
    append_stages(stages, directories, start)
    failed = _failed(sessions, config, digest, error)
    if config.running.clean_workdir:
        broken = {entry.label for entry in failed}
        for session, directory in zip(sessions, directories, strict=True):
            if session.label not in broken:
                derivatives.remove_tree(directory)
    return failed


def _session_graphs(sessions: Sequence[Session], config: RunConfig, digest: str) -> list[Any]:
    """The graph of each session; one that an earlier run preprocessed, or finished in other spaces, starts from there."""
    engine.configure_nipype(config)
    from bids_wmh_uad.workflows.reuse import datasets, find_preprocessed
    from bids_wmh_uad.workflows.session import init_finished_wf, init_session_wf

    earlier = datasets(config)

    def graph(session: Session) -> Any:
        in_flair = derivatives.is_finished(config.output_dir, session, config.method, digest)
        if in_flair and not _is_finished(session, config, digest):  # a space is missing
            return init_finished_wf(session, config)
        found = find_preprocessed(session, earlier, config.method.random_seed)
        return init_session_wf(session, config, digest, found)

    threads = config.performance.omp_nthreads
    return [memory.reserve(graph(session), session, threads) for session in sessions]


def _failed(
    sessions: Sequence[Session], config: RunConfig, digest: str, error: Exception | None
) -> list[FailedSession]:
    """Why each session that is not finished is not: its first crash, else that of another one, else the run's own error."""
    crashes = engine.read_crashes(config.log_dir)
    stopped = SessionError(STOPPED_EARLY) if crashes and config.running.stop_on_first_crash else None
    failed = []
    for session in sessions:
        if _is_finished(session, config, digest):
            continue
        of_session = [crash.error for crash in crashes if session.workflow_name in crash.node.split(".")]
        reason = error or "no error was said"
        text = NOT_FINISHED.format(where=session.label, reason=reason, log_dir=config.log_dir)
        other = stopped or refusal(reason, session.label) or SessionError(text)
        failed.append(session.failed(of_session[0] if of_session else other))
    return failed


def write_citation(graph: Any, config: RunConfig) -> None:
    """Write the methods text of a session's graph, and its references: ``CITATION`` in the forms of `METHODS_FILES`."""
    from bids_wmh_uad.reports.methods import METHODS_FILES

    description = graph.visit_desc()
    for name, write in METHODS_FILES.items():
        if Path(name).suffix in PLAIN_FORMS or not config.running.md_only_boilerplate:
            write_atomically(config.output_dir / name, write(description).encode())
