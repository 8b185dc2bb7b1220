"""How much memory a session takes, known from its headers before it starts; and what does not fit."""

from __future__ import annotations

import math
import resource
from pathlib import Path
from typing import Any

import numpy as np

from bids_wmh_uad.bids.dataset import FailedSession, Session
from bids_wmh_uad.config import RunConfig
from bids_wmh_uad.errors import TOO_LITTLE_MEMORY, MemoryExhaustedError
from bids_wmh_uad.images import read_header

LEAST_GB = 1.3
"""Memory of a process at its peak on small scans, GiB: brain extraction (`benchmarks/memory.py`)."""
BASE_GB, VOXEL_BYTES = 0.75, 70
"""Memory of a process between steps, GiB, and what the costliest step (the bias field) adds for a voxel of the larger
scan (`benchmarks/memory.py`)."""
LIBRARIES_GB = 1.0
"""Address space that libraries take beyond the memory they use, GiB (`benchmarks/memory.py`): it counts for ``ulimit -v``."""

PAIR_BYTES, ALIGNED_BYTES = 120, 16
"""Memory of comparing two sessions, their figures with them, and of each session that waits for it, for a voxel of their
common grid: what four phantom sessions took with one thread and with four (measured once, no command repeats it)."""


def session_gb(session: Session, threads: int = 1) -> tuple[float, float]:
    """Largest memory of one of a session's steps, and the voxels of its larger scan.

    Parameters
    ----------
    session : Session
    threads : int
        Of each step: a thread has a stack of its own.

    Returns
    -------
    need : float
        GiB.
    voxels : float
        Millions; 0 where no header can be read, which running the session says.
    """
    voxels = max(_voxels(path) for path in (session.flair, session.t1w))
    need = max(LEAST_GB, BASE_GB + VOXEL_BYTES * voxels / 2**30)
    return need + 8 * (threads - 1) / 1024, voxels / 1e6


def _voxels(path: Path) -> float:
    try:
        return float(np.prod(read_header(path).get_data_shape()[:3], dtype=float))
    except Exception:  # noqa: BLE001 (whatever is wrong with the scan, reading it says so)
        return 0.0


def refuse_too_large(session: Session, config: RunConfig) -> FailedSession | None:
    """The session as a failed one, if none of its steps' processes could have the memory it needs even alone."""
    need, voxels = session_gb(session, config.performance.omp_nthreads)
    address = resource.getrlimit(resource.RLIMIT_AS)[0]
    address_gb = math.inf if address == resource.RLIM_INFINITY else address / 2**30 - LIBRARIES_GB
    limit, source = min((config.performance.mem_gb, "are free, or given by --mem-gb"), (address_gb, "are left by 'ulimit -v'"))  # fmt: skip
    if need <= limit:
        return None
    text = TOO_LITTLE_MEMORY.format(
        where=session.label, need=need, voxels=voxels, limit=max(limit, 0), source=source
    )
    return session.failed(MemoryExhaustedError(text))


def reserve(graph: Any, session: Session, threads: int) -> Any:
    """Tell the scheduler what each of a session's steps takes, so that as many run side by side as fit.

    Returns
    -------
    Workflow
        `graph`.
    """
    need, _ = session_gb(session, threads)
    for node in graph._get_all_nodes():  # nipype takes memory when a node is made, and has no other way in
        node._mem_gb = need
    return graph


def pairs_at_once(sessions: int, voxels: int, config: RunConfig) -> int:
    """How many pairs of a participant's sessions can be compared side by side: as many as fit, at least one.

    Parameters
    ----------
    sessions : int
        Those of the participant, all held in their common space.
    voxels : int
        Of its grid.
    config : RunConfig
    """
    free = config.performance.mem_gb - BASE_GB - ALIGNED_BYTES * sessions * voxels / 2**30
    fit = int(free / (PAIR_BYTES * voxels / 2**30))
    return max(1, min(config.performance.nprocs, fit))
