"""The train level: learn the encoder from controls.

Controls are preprocessed like any session, brought to the working grid, and cut into
pairs of patches at the same template location of two different participants. Of a
participant with several sessions the first is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from bids_wmh_uad.bids.dataset import Session, find_sessions
from bids_wmh_uad.config import TrainConfig
from bids_wmh_uad.errors import EXIT_OK, EXIT_SESSION_FAILED, NOT_ENOUGH_CONTROLS, MissingInputError
from bids_wmh_uad.interfaces.controls import CONTROL
from bids_wmh_uad.train.launch import Meeting, own_device, read_launch
from bids_wmh_uad.train.learning import learn
from bids_wmh_uad.train.normality import fit_normality
from bids_wmh_uad.workflows import engine, memory
from bids_wmh_uad.workflows.reuse import datasets, find_lesions, find_preprocessed

LOGGER = logging.getLogger("bids_wmh_uad")
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
    """
    launch = read_launch(os.environ)
    meeting = Meeting(launch)
    if launch.rank > 0:
        learn(meeting.await_controls(), config, meeting, own_device(config.performance.device, launch))
        return EXIT_OK
    engine.require_device(config.performance.device)
    controls: dict[Session, Path] = {}
    try:
        controls, complete = _controls(config)
    finally:
        meeting.announce({session.label: path for session, path in controls.items()} or None)
    device = own_device(config.performance.device, launch)  # now: workers are forked without it
    learn({session.label: path for session, path in controls.items()}, config, meeting, device)
    fit_normality(list(controls.values()), config)
    LOGGER.info("Model: %s", config.training.output_model)
    return EXIT_OK if complete else EXIT_SESSION_FAILED


def _controls(config: TrainConfig) -> tuple[dict[Session, Path], bool]:
    """Prepare the selected controls, the first session of each participant; whether none was left out."""
    sessions, unusable = find_sessions(config.bids_dir, config.selection)
    sessions = list({session.subject: session for session in reversed(sessions)}.values())[::-1]
    prepared = prepare_controls(sessions, config)
    for entry in unusable:
        LOGGER.error("%s: %s", entry.label, entry.error)
    if len(prepared) < 2:
        raise MissingInputError(NOT_ENOUGH_CONTROLS.format(path=config.bids_dir, n=len(prepared)))
    return prepared, not unusable and len(prepared) == len(sessions)


def prepare_controls(sessions: Sequence[Session], config: TrainConfig) -> dict[Session, Path]:
    """Preprocess the controls, to directories for `controls.open_control`; those that fail are said and left out."""
    engine.configure_nipype(config)
    from bids_wmh_uad.workflows.control import init_control_wf, init_train_wf

    given = datasets(config)
    graphs = []
    for session in sessions:
        earlier = find_preprocessed(session, [*given, config.output_dir], config.method.random_seed)
        lesions = find_lesions(session, given, earlier)
        LOGGER.info(PREPARING, session.label, "made anew" if earlier is None else "reused", lesions[0])
        graph = init_control_wf(session, config, lesions, earlier)
        graphs.append(memory.reserve(graph, session, config.performance.omp_nthreads))
    progress = engine.Progress({session.workflow_name: session.label for session in sessions}, engine.PREPARE)
    try:
        init_train_wf(graphs, config).run(**engine.plugin_settings(config, progress))
    except (RuntimeError, OSError):  # some nodes failed: said below
        LOGGER.debug("", exc_info=True)
    for crash in engine.read_crashes(config.log_dir):
        LOGGER.error("%s", crash.error)
    controls = {
        session: engine.session_directory(session, config) / engine.PREPARE / CONTROL for session in sessions
    }
    return {session: path for session, path in controls.items() if path.is_dir()}
