"""The nipype plugin that runs sessions in order, and survives the death of a worker."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from traceback import format_exception
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer, run_node

from bids_wmh_uad.errors import WORKER_KILLED
from bids_wmh_uad.processes import die_with_parent
from bids_wmh_uad.workflows.pickles import signed

PRELOADED = ("ants", "deepbet")
"""What is imported before workers are forked, so that each of them, and those of the next batch, need not: 2 s."""
LEAST_WAIT, LONGEST_WAIT = 0.01, 5.0
"""Seconds between two looks of the scheduler: at least, and at most while no step ends."""


class SessionsInOrder(MultiProcPlugin):
    """nipype's ``MultiProc``, with five differences.

    An earlier session's steps go before a later one's: nipype submits whatever is ready in the
    order of the graph, so that all sessions would be begun before any is done.

    A worker that is killed (by the kernel, when memory runs out) fails the steps in flight and
    is replaced: nipype would wait for its answer for ever.

    Steps are handed out when one has ended. nipype looks ten times a second, and collects garbage each time: a tenth
    of a second with all libraries loaded, so that a core is busy with nothing else while a worker is idle.

    Pickles are signed, and others are not read.

    Workers end with this process, however it ends, and leave Ctrl-C to it.

    Parameters
    ----------
    sessions : sequence of str
        The sessions' workflow names, in order.
    plugin_args : dict
        As for ``MultiProc``.
    keys : mapping
        With what pickles are signed, by directory (`pickles.signed`).
    """

    pool: ProcessPoolExecutor

    def __init__(
        self, sessions: Sequence[str], plugin_args: dict[str, Any], keys: Mapping[Path, str]
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self._keys = keys
        self._order = {name: number for number, name in enumerate(sessions)}
        self._ended = threading.Event()
        self.pool = self._new_pool()  # nipype's has not started a process yet

    def run(self, graph: Any, config: Any, updatehash: bool = False) -> None:
        """Execute the graph; workers are forked in here, and sign too."""
        often = {**config, "execution": {**config["execution"], "poll_sleep_duration": LEAST_WAIT}}
        with signed(self._keys), _loaded_and_frozen():
            super().run(graph, often, updatehash=updatehash)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=self.processors,
            initializer=_start_worker,
            initargs=(self._cwd, os.getpid()),
            mp_context=multiprocessing.get_context(self.plugin_args.get("mp_context")),
        )

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        before = self._finished()
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
        if self.pending_tasks and self._finished() == before:  # else a step that ran in here has freed others
            self._ended.wait(LONGEST_WAIT)
        self._ended.clear()  # what ended meanwhile has left its result, and nipype's loop looks for results next

    def _finished(self) -> int:
        return int((self.proc_done & ~self.proc_pending).sum())

    def _sort_jobs(self, jobids: Any, scheduler: str = "tsort") -> list[int]:  # noqa: ARG002
        return sorted(jobids, key=lambda job: (self._position(self.procs[job]), job))

    def _position(self, node: Any) -> int:
        # the parts of a MapNode know their session by their directory only
        parts = [*node.fullname.split("."), *Path(node.base_dir or "").parts]
        return next((self._order[part] for part in parts if part in self._order), len(self._order))

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        if getattr(self.pool, "_broken", False):
            self.pool = self._new_pool()
        self._taskid += 1
        future = self.pool.submit(run_node, node, updatehash, self._taskid)
        self._task_obj[self._taskid] = future
        future.add_done_callback(partial(self._collect, self._taskid))
        return int(self._taskid)

    def _collect(self, taskid: int, future: Future[dict[str, Any]]) -> None:
        self._taskresult[taskid] = self._result(taskid, future)
        self._ended.set()

    def _result(self, taskid: int, future: Future[dict[str, Any]]) -> dict[str, Any]:
        error = future.exception()
        if error is None:
            return future.result()
        text = [f"bids_wmh_uad.errors.WorkerKilledError: {WORKER_KILLED}"]
        if not isinstance(error, BrokenProcessPool):  # of a step that could not read its inputs
            text = format_exception(error)
        return {"result": None, "traceback": text, "taskid": taskid}


@contextmanager
def _loaded_and_frozen() -> Iterator[None]:
    """Load libraries, and leave what is there now out of garbage collections, nipype's one a step among them; workers share it unwritten."""
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
