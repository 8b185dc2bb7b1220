"""What whole runs of the program cost: wall time, processor time and memory of all its processes."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

SAMPLED_EVERY = 0.2
"""Seconds between two looks at the memory, at least."""
LOOKING = 0.02
"""Largest share of a core for these looks: the kernel takes longer the more memory there is."""


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes
    ----------
    seconds : float
        Wall time.
    cpu_seconds : float
        Of all its processes.
    peak_bytes : int
        Largest memory of all its processes together, shared pages counted once (proportional set size, sampled).
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def memory(process: int) -> int:
    """Proportional set size of a process and its descendants, bytes."""
    total = 0
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, StopIteration):
        return total
    return total + sum(memory(int(child)) for child in children)


def run(
    command: Sequence[str | Path], environment: Mapping[str, str] = os.environ, directory: Path | None = None
) -> Cost:
    """Run a command to its end, in a directory.

    Raises
    ------
    SystemExit
        If it fails.
    """
    before, start, peak = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter(), 0
    with subprocess.Popen(
        command, cwd=directory, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as program:
        while program.poll() is None:
            looked = perf_counter()
            peak = max(peak, memory(program.pid))
            with suppress(subprocess.TimeoutExpired):
                program.wait(max(SAMPLED_EVERY, (perf_counter() - looked) / LOOKING))
    seconds = perf_counter() - start
    if program.returncode:
        raise SystemExit(f"failed ({program.returncode}): {' '.join(map(str, command))}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, peak)
