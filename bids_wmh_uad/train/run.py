"""The train level: learn the encoder from controls.

Controls are preprocessed like any session, brought to the working grid, and cut into
pairs of patches at the same template location of two different participants. Of a
participant with several sessions the first is used.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bids_wmh_uad.bids.dataset import FailedSession, Session, find_sessions
from bids_wmh_uad.bids.derivatives import lock_path
from bids_wmh_uad.bids.status import DONE, StatusTable
from bids_wmh_uad.config import TrainConfig
from bids_wmh_uad.errors import (
    EXIT_OK,
    EXIT_SESSION_FAILED,
    NOT_ENOUGH_CONTROLS,
    NOT_PREPARED,
    BadDataError,
    MissingInputError,
    SessionError,
)
from bids_wmh_uad.files import sweep
from bids_wmh_uad.imaging.controls import open_control
from bids_wmh_uad.interfaces.controls import CONFIRMED, CONTROL
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.train.launch import Meeting, own_device, read_launch
from bids_wmh_uad.train.learning import learn
from bids_wmh_uad.train.normality import fit_normality
from bids_wmh_uad.workflows import engine, memory
from bids_wmh_uad.workflows.reuse import datasets, find_lesions, find_preprocessed

LOGGER = logging.getLogger("bids_wmh_uad")
MODEL_LOCK = ".lock"
"""Name of the lock in a model directory."""
PREPARING = "%s: preprocessing %s; left out as lesion: %s"


def run_train(config: TrainConfig) -> int:
    """Train the siamese auto-encoder on the selected sessions and write a model directory.

    Where torchrun or srun started several processes, the first one does all but the training
    itself alone.

    Returns
    -------
    int
        0; 1 if a session could not be used (the model is written all the same).

    Raises
    ------
    MissingInputError
        If fewer than two participants can be used.
    TrainingError
        If training diverges, or cannot be resumed.
    BusyError
        If another process trains in the output or the model directory, or prepares the same controls.
    """
    launch = read_launch(os.environ)
    meeting = Meeting(launch)
    if launch.rank > 0:
        learn(meeting.await_controls(), config, meeting, own_device(config.performance.device, launch))
        return EXIT_OK
    try:
        return _train_first(config, meeting)
    finally:  # nothing came of it: the lock made the directory
        with suppress(OSError):
            config.training.output_model.rmdir()


def _train_first(config: TrainConfig, meeting: Meeting) -> int:
    """What the first process does."""
    controls: dict[Session, Path] = {}
    with Locks() as locks:
        try:
            _take_directories(config, locks)
            engine.require_device(config.performance.device)
            controls, complete = _controls(config, locks)
        finally:
            meeting.announce({session.label: path for session, path in controls.items()} or None)
        device = own_device(config.performance.device, meeting.launch)  # now: workers are forked without it
        learn({session.label: path for session, path in controls.items()}, config, meeting, device)
        fit_normality(list(controls.values()), config)
    LOGGER.info("Model: %s", config.training.output_model)
    return EXIT_OK if complete else EXIT_SESSION_FAILED


def _take_directories(config: TrainConfig, locks: Locks) -> None:
    """Take the output and the model directory for this training; what killed ones left half written goes."""
    model = config.training.output_model
    locks.take(lock_path(config.output_dir, "train"), str(config.output_dir))
    locks.take(model / MODEL_LOCK, str(model))
    sweep([model])


def _controls(config: TrainConfig, locks: Locks) -> tuple[dict[Session, Path], bool]:
    """Prepare the selected controls, the first session of each participant; whether none was left out."""
    sessions, unusable = find_sessions(config.bids_dir, config.selection)
    sessions = list({session.subject: session for session in reversed(sessions)}.values())[::-1]
    unusable += [entry for session in sessions if (entry := memory.refuse_too_large(session, config))]
    table = StatusTable(config.log_dir / "status.tsv", sessions, unusable)
    left_out = {entry.label for entry in unusable}
    try:
        table.write()
        prepared, failed = prepare_controls(
            [session for session in sessions if session.label not in left_out], config, locks
        )
        table.end({session.label: DONE for session in prepared})
        table.fail(failed)
    finally:
        table.interrupt()
        LOGGER.info("Controls (%s):\n%s", table.path, "\n".join(table.summary()))
    for entry in unusable:
        LOGGER.error("%s: %s", entry.label, entry.error)
    if len(prepared) < 2:
        raise MissingInputError(NOT_ENOUGH_CONTROLS.format(path=config.bids_dir, n=len(prepared)))
    return prepared, not unusable and not failed


def prepare_controls(
    sessions: Sequence[Session], config: TrainConfig, locks: Locks
) -> tuple[dict[Session, Path], list[FailedSession]]:
    """Preprocess the controls, to directories for `controls.open_control`; those that fail are said and left out.

    What an earlier run prepared counts only if nothing that it was made of has changed.
    """
    for session in sessions:
        engine.take_session(session, config, locks)
    engine.configure_nipype(config)
    from bids_wmh_uad.workflows.control import init_control_wf, init_train_wf

    given = datasets(config)
    graphs = []
    for session in sessions:
        _remove_broken(engine.session_directory(session, config) / engine.PREPARE)
        earlier = find_preprocessed(session, [*given, config.output_dir], config.method.random_seed)
        lesions = find_lesions(session, given, earlier)
        LOGGER.info(PREPARING, session.label, "made anew" if earlier is None else "reused", lesions[0])
        for warning in session.warnings:
            LOGGER.warning("%s: %s", session.label, warning.text)
        graph = init_control_wf(session, config, lesions, earlier)
        graphs.append(memory.reserve(graph, session, config.performance.omp_nthreads))
    progress = engine.Progress({session.workflow_name: session.label for session in sessions}, engine.CONFIRM)
    try:
        init_train_wf(graphs, config).run(**engine.plugin_settings(config, progress, sessions))
    except (RuntimeError, OSError):  # some nodes failed: said below
        LOGGER.debug("", exc_info=True)
    crashes = engine.read_crashes(config.log_dir)
    for crash in crashes:
        LOGGER.error("%s", crash.error)
    controls, failed = {}, []
    for session in sessions:
        directory = engine.session_directory(session, config)
        if _is_confirmed(directory, config.run_uuid):
            controls[session] = directory / engine.PREPARE / CONTROL
        else:
            text = NOT_PREPARED.format(where=session.label)
            LOGGER.error("%s", text)
            reasons = [crash.error for crash in crashes if session.workflow_name in crash.node.split(".")]
            failed.append(session.failed(next(iter(reasons), SessionError(text))))
    return controls, failed


def _remove_broken(step: Path) -> None:
    """Remove what an earlier run prepared if it is not whole: nipype sees that its directory is there, not what is in it."""
    if step.is_dir():
        try:
            open_control(step / CONTROL)
        except BadDataError:
            shutil.rmtree(step)


def _is_confirmed(directory: Path, run_uuid: str) -> bool:
    """Whether this very run prepared a session's control, or found it to be of the same inputs."""
    try:
        return (directory / engine.CONFIRM / CONFIRMED).read_text() == run_uuid
    except OSError:
        return False
