"""People who are scanned again, for the benchmark of change; and what comparing many sessions of one costs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from bids_wmh_uad.phantom import Change, PhantomSpec, follow_up, make_specs, write_dataset

CHANGE = Change(new=6, grown=6, growth=0.2, shrunk=3, shrinkage=0.3, resolved=4, atrophy=0.03)
"""Between the first two sessions; lesions that grow have 30 to 3000 mm3."""
VARIANTS: dict[str, dict[str, Any]] = {
    "same": {},
    "scanner": {"other_scanner": True},
    "voxels": {"flair_zooms": (1.1, 1.1, 2.0)},
    "scaled": {"scale": (1.02, 1.02, 1.02)},
    "stretched": {"scale": (1.0, 1.02, 0.99)},
}
"""What else differs in the second session, by name; the first and the third are alike."""
RESCANS = "rescans"
"""Variant of two sessions between which nothing changed."""
SLICES = (4.0, 3.0)
"""Thickness of FLAIR slices, mm, in turn."""


def make_people(directory: Path, n_people: int, seed: int, variant: str = "same") -> None:
    """Write the phantoms' dataset, if it is not there."""
    if not directory.exists():
        _write(directory, make_courses(n_people, seed, variant))


def make_courses(n_people: int, seed: int, variant: str) -> dict[str, PhantomSpec]:
    """Specs of all sessions of the people, by ``sub-X_ses-Y``."""
    courses: tuple[tuple[Change, ...], ...] = ((), (Change(),))
    if variant != RESCANS:
        second = replace(CHANGE, **VARIANTS[variant])
        courses = ((), (second,), (second, Change()))
    first = make_specs(n_people, 0, seed=seed, slice_thickness=SLICES)
    return {
        f"{person}_ses-{len(changes) + 1}": replace(spec, changes=changes)
        for person, spec in first.items()
        for changes in courses
    }


def _write(directory: Path, sessions: dict[str, PhantomSpec]) -> None:
    unfinished = directory.with_name(f"{directory.name}.part")
    write_dataset(unfinished, sessions)
    unfinished.rename(directory)


def run_program(bids_dir: Path, out: Path, *options: str) -> resource.struct_rusage:
    """The participant level, and what it took; what is there already is not made again."""
    level = ["participant", "-w", f"{out}-work", "--skip-bids-validation", *options]
    command = [sys.executable, "-m", "bids_wmh_uad", str(bids_dir), str(out), *level]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        _, running.returncode, usage = os.wait4(running.pid, 0)
    return usage


def time_sessions(cache: Path, n_sessions: int, seed: int) -> dict[str, float | None]:
    """What comparing the sessions of one person costs when they are done: wall and processor time, s, and memory, GiB.

    And that processor time as a share of the sessions' own, where this run made them.
    """
    directory = cache / f"sessions-{n_sessions}"
    if not directory.exists():
        small = Change(new=1, grown=2, shrunk=1, atrophy=0.01)
        _write(directory, follow_up(make_specs(1, 0, seed=seed, slice_thickness=SLICES), small, n_sessions))
    out = cache / f"out-{directory.name}"
    fresh = not out.exists()
    sessions = run_program(directory, out)
    for old in out.glob("sub-*/*_desc-change_longitudinal.json"):
        old.unlink()  # compared anew
    start = monotonic()
    spent = run_program(directory, out, "--longitudinal")
    made = len(list(out.glob("sub-*/*_desc-change_longitudinal.json")))
    return {
        "sessions": n_sessions,
        "compared": made,
        "wall_s": round(monotonic() - start, 1),
        "processor_s": round(_processor(spent), 1),
        "peak_gb": round(spent.ru_maxrss / 2**20, 2),
        "share_of_the_sessions": round(_processor(spent) / _processor(sessions), 3) if fresh else None,
    }


def _processor(usage: resource.struct_rusage) -> float:
    """Processor time, s."""
    return usage.ru_utime + usage.ru_stime
