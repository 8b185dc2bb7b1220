"""The nipype plugin that runs sessions in order, and survives the death of a worker."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from traceback import format_exception
from typing import Any

from nipype.pipeline.engine.utils import topological_sort
from nipype.pipeline.plugins.base import PluginBase
from nipype.pipeline.plugins.multiproc import process_initializer
from nipype.pipeline.plugins.tools import report_crash

from bids_wmh_uad.errors import WORKER_KILLED
from bids_wmh_uad.processes import die_with_parent
from bids_wmh_uad.workflows.cache import kept

PRELOADED: tuple[str, ...] = ("ants", "deepbet")
"""What is imported before workers are forked, so that each of them, and those of the next batch, need not: 2 s."""


class SessionsInOrder(PluginBase):
    """Steps on worker processes, like nipype's ``MultiProc``, with these differences.

    An earlier session's steps go before a later one's: nipype submits whatever is ready in the
    order of the graph, so that all sessions would be begun before any is done.

    A worker that is killed (by the kernel, when memory runs out) fails the steps in flight and
    is replaced: nipype would wait for its answer for ever.

    Steps are handed out when one has ended. nipype looks ten times a second, with a garbage collection and the sum of
    a matrix of all steps each time, copies each step, and looks itself whether it is in the cache: here its worker does.

    Pickles are signed, and others are not read; see `cache`.

    Workers end with this process, however it ends, and leave Ctrl-C to it.

    Parameters
    ----------
    sessions : sequence of str
        The sessions' workflow names, in order.
    plugin_args : dict
        ``n_procs``, ``memory_gb`` (of all steps that run side by side) and ``status_callback``.
    keys : mapping
        With what pickles are signed, by directory (`cache.kept`).
    """

    def __init__(
        self, sessions: Sequence[str], plugin_args: dict[str, Any], keys: Mapping[Path, str]
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self.processors, self.memory_gb = plugin_args["n_procs"], plugin_args["memory_gb"]
        self._keys = keys
        self._order = {name: number for number, name in enumerate(sessions)}
        self._pool = self._new_pool()  # no process is started yet, but whether there can be any is known

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:  # noqa: ARG002 (nipype's signature)
        """Execute the graph; workers are forked in here, and sign too.

        Raises
        ------
        RuntimeError
            With the first traceback, if a step failed: with ``stop_on_first_crash`` when the steps in flight have ended, else at the end.
        """
        stop = config["execution"]["stop_on_first_crash"] == "true"
        with kept(self._keys), _loaded_and_frozen():
            failures = self._run_all(graph, stop)
            self._pool.shutdown()  # who goes on from here is alone: no step still writes
        if failures:
            raise RuntimeError(failures[0])

    def _run_all(self, graph: Any, stop: bool) -> list[str]:
        """Run all steps that can be, or none after one that failed; the tracebacks of those that failed."""
        steps, _ = topological_sort(graph)
        place = {step: (self._session(step), number) for number, step in enumerate(steps)}
        missing = dict(graph.in_degree())
        ready = {step for step in steps if not missing[step]}
        running: dict[Future[list[str] | None], Any] = {}
        failures: list[str] = []
        while ready or running:
            for step in self._fitting(sorted(ready, key=place.__getitem__), running.values()):
                self._tell(step, "start")
                ready.remove(step)
                running[self._submit(step)] = step
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                step, traceback = running.pop(future), _traceback(future)
                if traceback is None:
                    self._tell(step, "end")
                    for after in graph.successors(step):
                        missing[after] -= 1
                    ready |= {after for after in graph.successors(step) if not missing[after]}
                    continue
                failures.append("".join(traceback))  # what comes after it is never ready
                self._tell(step, "exception")
                step._traceback = traceback
                report_crash(step, traceback=traceback)
            if failures and stop:
                break
        return failures

    def _fitting(self, ready: Sequence[Any], running: Iterable[Any]) -> Iterator[Any]:
        """Those of the steps that fit beside what runs; one that takes more than there is runs alone."""
        processors, memory_gb = self.processors, self.memory_gb
        for step in running:
            processors -= min(step.n_procs, processors)
            memory_gb -= min(step.mem_gb, memory_gb)
        for step in ready:
            if processors == 0 or memory_gb < 0.01:
                return
            asked = min(step.n_procs, self.processors), min(step.mem_gb, self.memory_gb)
            if asked[0] <= processors and asked[1] <= memory_gb:
                processors -= asked[0]
                memory_gb -= asked[1]
                yield step

    def _session(self, step: Any) -> int:
        """The number of a step's session."""
        return next(
            (self._order[part] for part in step.fullname.split(".") if part in self._order), len(self._order)
        )

    def _tell(self, step: Any, status: str) -> None:
        if self._status_callback:
            self._status_callback(step, status)

    def _submit(self, step: Any) -> Future[list[str] | None]:
        if getattr(self._pool, "_broken", False):
            self._pool = self._new_pool()
        return self._pool.submit(_run_step, step)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.processors, initializer=_start_worker, initargs=(str(Path.cwd()), os.getpid())
        )


def _run_step(step: Any) -> list[str] | None:
    """In a worker: run a step, or find it in the cache; the traceback if it fails."""
    try:
        step.run()
    except Exception as error:  # noqa: BLE001 (whatever it is, the crash file has it)
        return format_exception(error)
    return None


def _traceback(future: Future[list[str] | None]) -> list[str] | None:
    """What a worker answered, or why it could not."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return [f"bids_wmh_uad.errors.WorkerKilledError: {WORKER_KILLED}"]
    return format_exception(error)


@contextmanager
def _loaded_and_frozen() -> Iterator[None]:
    """Load libraries, and leave what is there now out of garbage collections; workers share it unwritten."""
    for module in PRELOADED:
        import_module(module)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _start_worker(directory: str, parent: int) -> None:
    die_with_parent(parent)
    process_initializer(directory)
