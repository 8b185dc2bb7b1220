"""The nipype plugin that runs sessions in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin


class SessionsInOrder(MultiProcPlugin):
    """nipype's ``MultiProc``, but an earlier session's steps go before a later one's.

    Nipype submits whatever is ready in the order of the graph: with hundreds of sessions all
    would be begun before any is done, and a run that is cut short would leave no result.

    Parameters
    ----------
    sessions : sequence of str
        The sessions' workflow names, in order.
    plugin_args : dict
        As for ``MultiProc``.
    """

    def __init__(self, sessions: Sequence[str], plugin_args: dict[str, Any]) -> None:
        super().__init__(plugin_args=plugin_args)
        self._order = {name: number for number, name in enumerate(sessions)}

    def _sort_jobs(self, jobids: Any, scheduler: str = "tsort") -> list[int]:  # noqa: ARG002
        return sorted(jobids, key=lambda job: (self._position(self.procs[job]), job))

    def _position(self, node: Any) -> int:
        # the parts of a MapNode know their session by their directory only
        parts = [*node.fullname.split("."), *Path(node.base_dir or "").parts]
        return next((self._order[part] for part in parts if part in self._order), len(self._order))
