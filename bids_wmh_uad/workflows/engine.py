"""Running nipype graphs: environment, settings, plugins, progress, and what went wrong."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any

from bids_wmh_uad import __version__, errors
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.environment import NO_SHARED_MEMORY, choose_temporary_directory, refusal
from bids_wmh_uad.files import sweep
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.reading import read_text
from bids_wmh_uad.workflows.workdir import open_directory, open_private, read_key

LOGGER = logging.getLogger("bids_wmh_uad")
SESSIONS_PER_PROCESS = 16
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where a directory may not be made: people started in the wrong one, or named it."""
NO_GRAPHVIZ = "%s is not drawn: Graphviz (dot) is not installed"
STATE = ".state"
"""The directory in the work directory where libraries keep settings and caches."""
_TYPED_ERROR = re.compile(r"^\s*bids_wmh_uad\.errors\.(\w+): (.+)$", re.MULTILINE)
_LAST_ERROR = re.compile(r"^\s*((?!nipype)[\w.]+(?:Error|Exception|Interrupt)\b.*)$", re.MULTILINE)
_NO_RESULT = re.compile(r"^FileNotFoundError: .*result_[^/]*\.pklz$")
"""What nipype says, last of all, when a step could not even write down that it failed."""


def set_environment(config: RunConfig) -> None:
    """Set what the libraries read when they are first imported.

    Nothing may look up a host or write outside the output, work and temporary directories,
    and ITK is reproducible only with a seed and a thread count from the environment.
    """
    threads = str(config.performance.omp_nthreads)
    state = config.running.work_dir / STATE
    choose_temporary_directory(state / "tmp")
    os.environ.setdefault("LOGNAME", os.environ.get("USER") or f"uid{os.getuid()}")  # names clusters' jobs
    os.environ |= {
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else torch's look for a GPU spoils it for workers that are forked later
        **dict.fromkeys(("NO_ET", "NIPYPE_NO_ET"), "1"),
        "NIPYPE_CONFIG_DIR": str(state / "nipype"),
        "MPLCONFIGDIR": str(state / "matplotlib"),
        "MPLBACKEND": "Agg",
        "TEMPLATEFLOW_HOME": str(files("bids_wmh_uad").joinpath("data/templateflow")),
        "TEMPLATEFLOW_AUTOUPDATE": "0",
        "ANTS_RANDOM_SEED": str(config.method.random_seed + 1),  # 0 would mean: from the clock
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }


def require_device(name: str) -> None:
    """Raise before any work if a GPU is asked for by name and torch sees none.

    Raises
    ------
    TemporaryError
    """
    if name.startswith("cuda"):
        from bids_wmh_uad.core.device import resolve_device

        resolve_device(name)


def workflow_name(config: RunConfig) -> str:
    """The name of the working directory of a level's sessions in the work directory.

    One per version, so that no step is taken from another's cache; and one per dataset, of which several may
    be worked on from the same directory, with sessions of the same names.
    """
    dataset = hashlib.sha256(os.fsencode(config.bids_dir)).hexdigest()[:8]
    version = re.sub(r"[^0-9A-Za-z]", "_", __version__)
    return f"bids_wmh_uad_{config.analysis_level}_{version}_{dataset}_wf"


def top_workflow(config: RunConfig) -> Any:
    """Make the empty graph that holds those of all sessions; its crash files go to the run's log directory."""
    from niworkflows.engine.workflows import LiterateWorkflow

    graph = LiterateWorkflow(name=workflow_name(config), base_dir=str(config.running.work_dir))
    graph.config["execution"]["crashdump_dir"] = str(config.log_dir)  # nipype's own settings refuse '%'
    return graph


PUBLISH, PREPARE, CONFIRM = "publish", "prepare", "confirm"
"""The node that ends a session of the participant level, and the last two of the train level."""
STAGING = "staging"
"""The directory in a session's working directory where its outputs wait for their publication."""


def session_directory(session: Session, config: RunConfig) -> Path:
    """The working directory of one session of this run's level."""
    return config.running.work_dir / workflow_name(config) / session.workflow_name


def open_work_directory(config: RunConfig) -> None:
    """Make the work directory and where libraries keep their settings, or check that only this user can write there.

    Raises
    ------
    UntrustedDirectoryError
        If another user can.
    CannotCreateError, StorageError
        If they cannot be made.
    """
    work_dir = config.running.work_dir
    try:
        open_directory(work_dir)
        open_private(work_dir / STATE, work_dir)
    except (errors.CannotCreateError, errors.StorageError) as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in NOT_ALLOWED:
            raise
        text = errors.NO_WORK_DIRECTORY.format(path=work_dir, reason=cause.strerror)
        raise errors.CannotCreateError(text) from cause


def take_session(session: Session, config: RunConfig, locks: Locks) -> None:
    """Make a session's working directory this process's own; that of an earlier run stays if only this user wrote there.

    What a killed run staged is removed; with ``--clean-workdir``, all that it left.

    Raises
    ------
    BusyError
        If another process works there.
    UntrustedDirectoryError
        If it is another user's, or open to others.
    """
    directory = session_directory(session, config)
    open_directory(directory.parent)
    locks.take(directory.with_suffix(".lock"), session.label)
    sweep([directory.parent])
    derivatives.remove_tree(directory if config.running.clean_workdir else directory / STAGING)
    open_private(directory, config.running.work_dir)


def configure_nipype(config: RunConfig) -> None:
    """Set nipype's execution options; call after :func:`set_environment`."""
    from nipype import config as nipype_config
    from nipype import logging as nipype_logging

    nipype_config.update_config({
        "execution": {
            "crashfile_format": "txt",
            "hash_method": "content",
            "poll_sleep_duration": "0.1",
            "remove_unnecessary_outputs": "false",
            "stop_on_first_crash": str(config.running.stop_on_first_crash).lower(),
            "check_version": "false",
            "create_report": "false",
        },
        "monitoring": {"enabled": str(config.running.resource_monitor).lower()},
        "logging": {"log_to_file": "false"},
    })  # fmt: skip
    nipype_logging.update_logging(nipype_config)
    level = {0: logging.CRITICAL, 1: logging.WARNING}.get(config.running.verbose, logging.INFO)
    if "nipype" in config.running.debug:
        level = logging.DEBUG
    for name in ("nipype", "nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(level)


def draw_graph(graph: Any, directory: Path) -> None:
    """Write ``graph.dot``, one session's steps, and with Graphviz ``graph.svg``: every session's are the same."""
    source, drawing = (directory / f"graph.{kind}" for kind in ("dot", "svg"))
    graph.write_hierarchical_dotfile(dotfilename=str(source), colored=True, simple_form=True)
    program = shutil.which("dot")
    if program is None:
        LOGGER.info(NO_GRAPHVIZ, source)
    else:
        subprocess.run([program, "-Tsvg", "-o", str(drawing), str(source)], check=False)  # noqa: S603 (Graphviz)


def plugin_settings(config: RunConfig, progress: Progress, sessions: Sequence[Session]) -> dict[str, Any]:
    """The ``plugin`` and ``plugin_args`` of ``Workflow.run`` for the graphs of `sessions` (see `take_session`).

    Raises
    ------
    UsageError
        If the ``--use-plugin`` file is not a mapping with ``plugin``.
    TemporaryError
        If processes cannot work together here: there is no shared memory.
    """
    performance = config.performance
    if performance.use_plugin is not None:
        settings = _read_plugin_file(performance.use_plugin)
        settings["plugin_args"]["status_callback"] = progress
        return settings
    from bids_wmh_uad.workflows.plugins import SessionsInOrder

    arguments = {
        "n_procs": performance.nprocs,
        "memory_gb": performance.mem_gb,
        "raise_insufficient": False,
        "status_callback": progress,
    }
    directories = [session_directory(session, config) for session in sessions]
    keys = {directory: read_key(directory) for directory in directories}
    try:
        return {"plugin": SessionsInOrder(list(progress.sessions), arguments, keys)}
    except (OSError, ImportError, NotImplementedError) as error:  # semaphores are files there
        raise errors.TemporaryError(NO_SHARED_MEMORY.format(reason=error)) from error


def batches(sessions: Sequence[Session], config: RunConfig) -> Iterator[Sequence[Session]]:
    """Sessions that share one graph: many, for at its end all but one process wait; not all, for graphs take memory.

    A cluster's plugin (``--use-plugin``) gets all at once: the cluster's queue is the scheduler.
    """
    size = (
        len(sessions) if config.performance.use_plugin else SESSIONS_PER_PROCESS * config.performance.nprocs
    )
    for start in range(0, len(sessions), max(1, size)):
        yield sessions[start : start + size]


def _read_plugin_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load(read_text(path))
        return {"plugin": settings["plugin"], "plugin_args": dict(settings.get("plugin_args") or {})}
    except (
        OSError,
        ValueError,
        yaml.YAMLError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        expected = f"expected a YAML mapping with 'plugin' and 'plugin_args' ({error})"
        raise errors.UsageError(
            errors.BAD_VALUE.format(option="--use-plugin", value=str(path), expected=expected)
        ) from error


STAGE_SECONDS = {
    "read_flair": 0.1, "read_t1w": 0.1, "brain_flair": 6, "brain_t1w": 6, "n4_flair": 6, "n4_t1w": 4, "coregister": 13,
    "normalise": 5, "align": 3, "score": 3, "regions": 2, "segment": 1, "checks": 2, "explain": 1,
    "finish": 0.5, "draw": 3, "stage": 1, "publish": 2,
}  # fmt: skip
"""The steps people hear of, and how long each takes on one session, roughly: only their ratios matter."""


class Progress:
    """Says on one line each when a session starts, ends or fails; and each step, with the time left.

    Steps are told on a terminal only; a log file has them always, a batch job's output with ``-vv``.

    Parameters
    ----------
    sessions : dict
        People's label of each session by its workflow's name.
    last_node : str
        The node that ends a session.
    terminal : bool
        Whether somebody watches.
    ended : callable, optional
        Called with a session's label when it ends, and the node that failed, or nothing.
    """

    def __init__(
        self,
        sessions: dict[str, str],
        last_node: str,
        *,
        terminal: bool = False,
        ended: Callable[[str, str], None] | None = None,
    ) -> None:
        self.sessions = sessions
        self._tell_end = ended
        self._last_node = last_node
        self._level = logging.INFO if terminal else logging.DEBUG
        self._first: float | None = None
        self._steps: set[tuple[str, str]] = set()
        self._passed = 0.0
        self._begun: dict[str, float] = {}
        self._ended: set[str] = set()

    def __call__(self, node: Any, status: str) -> None:
        """Nipype's status callback."""
        name = next((part for part in node.fullname.split(".") if part in self.sessions), None)
        if name is None or name in self._ended:  # nipype also calls for what a crash made it skip
            return
        if self._first is None:
            self._first = monotonic()
        if name not in self._begun:
            self._begun[name] = monotonic()
            LOGGER.info("%s: started", self.sessions[name])
        if status == "exception" or (status == "end" and node.name == self._last_node):
            self._ended.add(name)
            result = "failed" if status == "exception" else "done"
            seconds = monotonic() - self._begun[name]
            if status == "exception":  # what it will not do any more is not left to do
                self._pass(name, *STAGE_SECONDS)
            LOGGER.info("[%d/%d] %s: %s after %.0f s", len(self._ended), len(self.sessions), self.sessions[name], result, seconds)  # fmt: skip
            if self._tell_end:
                self._tell_end(self.sessions[name], node.name if status == "exception" else "")
        elif status == "end" and node.name in STAGE_SECONDS:
            self._pass(name, node.name)
            LOGGER.log(self._level, "%s: %s done, %s", self.sessions[name], node.name, self._left())

    def _pass(self, name: str, *steps: str) -> None:
        """Count steps as done. Their time is summed as they come: a sum over all at each one's end grows with the cohort."""
        new = {(name, step) for step in steps} - self._steps
        self._steps |= new
        self._passed += sum(STAGE_SECONDS[step] for _, step in new)

    def _left(self) -> str:
        """How long all sessions will still take, at the pace so far."""
        total = len(self.sessions) * sum(STAGE_SECONDS.values())
        elapsed = monotonic() - (self._first or 0.0)
        left = elapsed * (total - self._passed) / self._passed
        return f"{100 * self._passed / total:.0f} %, about {duration(left)} left"


def duration(seconds: float) -> str:
    """A time span in words that fit on a line: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True)
class Crash:
    """Why a node failed.

    Attributes
    ----------
    node : str
        Its name, with those of the graphs around it.
    error : WmhUadError
        What the node raised; a `SessionError` with the crash file's name where that has no type of this program's.
    crashfile : Path
    """

    node: str
    error: errors.WmhUadError
    crashfile: Path


def read_crashes(log_dir: Path) -> list[Crash]:
    """The crashes that nipype recorded in a run's log directory, the oldest first."""
    return [_read_crash(path) for path in sorted(log_dir.glob("crash-*.txt"))]


def _read_crash(path: Path) -> Crash:
    text = path.read_text(encoding="utf-8", errors="replace")
    node = next((line[6:].strip() for line in text.splitlines() if line.startswith("Node: ")), path.name)
    typed = [(getattr(errors, name, None), message) for name, message in _TYPED_ERROR.findall(text)]
    for kind, message in reversed(typed):
        if isinstance(kind, type) and issubclass(kind, errors.WmhUadError):
            return Crash(node, kind(message), path)
    plain = [line for line in _LAST_ERROR.findall(text) if not _NO_RESULT.search(line)]
    reason = plain[-1] if plain else "unknown error"
    step = node.partition(".")[2] or node  # without the run's graph, which people do not know
    crashed = errors.SessionError(errors.SESSION_CRASHED.format(node=step, reason=reason, crashfile=path))
    return Crash(node, refusal(reason, step) or crashed, path)
