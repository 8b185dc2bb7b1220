"""``main``: parse, prepare, dispatch, and turn every outcome into an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_wmh_uad import __version__
from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.cli.signals import stoppable
from bids_wmh_uad.config import GroupConfig, RunConfig, TrainConfig
from bids_wmh_uad.environment import (
    choose_home,
    leave_lost_directory,
    occupy_standard_streams,
    refusal,
    require_address_space,
    tell,
)
from bids_wmh_uad.errors import (
    CANNOT_CREATE,
    EXIT_OK,
    EXIT_SESSION_FAILED,
    LOG_LOST,
    CannotCreateError,
    Stopped,
    WmhUadError,
)
from bids_wmh_uad.files import not_written, sweep, write_text

if TYPE_CHECKING:
    from bids_wmh_uad.bids.dataset import Session

LOGGER = logging.getLogger("bids_wmh_uad")
WHOLE_RUN = "The run was stopped"
"""What the environment refused, where no single step or session was concerned."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        The command line's arguments; ``sys.argv[1:]`` if not given.

    Returns
    -------
    int
        The exit code (see ``docs/usage.md``).
    """
    occupy_standard_streams()
    with stoppable():
        try:
            try:
                return _run(sys.argv[1:] if argv is None else argv)
            finally:
                tell("")  # argparse leaves --help and --version in the stream
        except Stopped as stopped:
            _say_last(str(stopped))
            return stopped.exit_code
        except Exception as raised:
            error = raised if isinstance(raised, WmhUadError) else refusal(raised, WHOLE_RUN)
            if error is None:
                raise
            LOGGER.debug("", exc_info=True)
            _say_last(f"error: {error}")
            return error.exit_code


def _say_last(text: str) -> None:
    """One line on the terminal and, where there is one, in the log."""
    tell(f"bids-wmh-uad: {text}\n", error=True)
    for handler in LOGGER.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(LOGGER.makeRecord(LOGGER.name, logging.CRITICAL, "", 0, text, (), None))


def _run(argv: Sequence[str]) -> int:
    config = parse_args(argv)
    require_address_space()
    choose_home()
    if config.running.dry_run:
        return _dry_run(config)
    _prepare(config)
    try:
        return _dispatch(config)
    except WmhUadError:
        raise
    except Exception:
        if "pdb" in config.running.debug:
            import pdb

            pdb.post_mortem()
        raise


def _dispatch(config: RunConfig) -> int:
    if isinstance(config, GroupConfig):  # its page is rebuilt with its tables
        from bids_wmh_uad.group.run import run_group

        return run_group(config)
    if config.running.reports_only:
        from bids_wmh_uad.participant.reports import rebuild_reports

        return rebuild_reports(config)
    if isinstance(config, TrainConfig):
        from bids_wmh_uad.train.run import run_train

        return run_train(config)
    from bids_wmh_uad.participant.run import run_participant

    return run_participant(config)


def _prepare(config: RunConfig) -> None:
    """Make the run's directories, start its log, and set the libraries' environment.

    Of the processes of one training only the first has directories and a log.
    """
    from bids_wmh_uad.train.launch import read_launch
    from bids_wmh_uad.workflows.engine import open_work_directory, set_environment

    open_work_directory(config)
    if config.analysis_level == "train" and read_launch(os.environ).rank > 0:
        set_environment(config)
        return
    for path in (config.output_dir, config.log_dir):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(path, error) from error
    if not os.access(config.output_dir, os.W_OK):
        raise CannotCreateError(CANNOT_CREATE.format(path=config.output_dir, reason="not writable"))
    leave_lost_directory(config.running.work_dir)  # nipype starts its workers where the program runs
    sweep((config.output_dir, config.log_dir.parent, config.running.work_dir))
    write_text(config.log_dir / "config.toml", config.to_toml())
    _start_logging(config)
    LOGGER.info("bids-wmh-uad %s, %s level, log in %s", __version__, config.analysis_level, config.log_dir)
    set_environment(config)


def _start_logging(config: RunConfig) -> None:
    """Everything to the run's log file, the essential to the terminal."""
    logger = logging.getLogger("bids_wmh_uad")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if config.running.verbose > 1 else logging.INFO)
    file = _LogFile(config.log_dir / "bids-wmh-uad.log", encoding="utf-8", errors="backslashreplace")
    for handler in (console, file):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)


class _LogFile(logging.FileHandler):
    """A log file without which the run goes on, when the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Say once that the log ends here; with the run's last line, which the terminal has, it ends anyway."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.setLevel(logging.CRITICAL + 1)
        if record.levelno < logging.CRITICAL:
            tell(LOG_LOST.format(reason=error.strerror or error), error=True)


def _dry_run(config: RunConfig) -> int:
    """Print the sessions and the files that would be used."""
    from bids_wmh_uad.bids.dataset import find_sessions

    if config.analysis_level == "group":
        from bids_wmh_uad.bids.results import current_summaries

        found = current_summaries(config.output_dir)
        tell("\n".join([*map(str, found), f"{len(found)} sessions would be collected."]) + "\n")
        return EXIT_OK
    sessions, unusable = find_sessions(config.bids_dir, config.selection)
    lines = []
    for session in sessions:
        lines += [session.label, f"  FLAIR     {session.flair}", f"  T1w       {session.t1w}"]
        lines += [f"  not used  {path}" for path in session.unused]
        lines += [f"  reused    {path}" for path in _reused(session, config)]
        lines += [f"  warning   {warning.text}" for warning in session.warnings]
    lines += [f"{entry.label}\n  UNUSABLE  {entry.error}" for entry in unusable]
    lines.append(f"{len(sessions)} sessions would be processed, {len(unusable)} cannot be.")
    tell("\n".join(lines) + "\n")
    return EXIT_SESSION_FAILED if unusable else EXIT_OK


def _reused(session: Session, config: RunConfig) -> list[Path]:
    """Where the preprocessing of a session would be taken from: one directory, or none."""
    if config.analysis_level != "train" and not config.selection.derivatives:
        return []
    from bids_wmh_uad.workflows.reuse import datasets, find_preprocessed

    own = [config.output_dir] if config.analysis_level == "train" else []
    earlier = find_preprocessed(session, [*datasets(config), *own], config.method.random_seed)
    return [earlier.summary.parent] if earlier else []
