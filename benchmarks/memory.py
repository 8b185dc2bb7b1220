"""Memory of a session's steps, and what the program plans with (`workflows.memory`), on phantoms of two grids.

One JSON line: for each session its larger scan's voxels (millions), the largest step's peak and the need that was
planned (GiB), and their ratio, which must not be above 1; and the address space and memory that the libraries
take alone, beside the least address space that `environment` asks for.

    python benchmarks/memory.py
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("NO_ET", "1")

from bids_wmh_uad.bids.dataset import Session, find_sessions
from bids_wmh_uad.config import Selection
from bids_wmh_uad.environment import LEAST_ADDRESS_GB
from bids_wmh_uad.phantom import PhantomSpec
from bids_wmh_uad.phantom.dataset import write_dataset
from bids_wmh_uad.workflows.memory import session_gb

SPECS = {"sub-01": PhantomSpec(seed=1), "sub-02": PhantomSpec(seed=2, flair_zooms=(0.8, 0.8, 0.8))}
"""A clinical FLAIR of thick slices, and one of a fine grid; both with a head around the brain."""
LIBRARIES = """
import ants, deepbet, torch
import bids_wmh_uad.workflows.session
for line in open("/proc/self/status"):
    if line.startswith(("VmPeak", "VmHWM")):
        print(int(line.split()[1]) / 2**20)
"""
"""Loads what a session's steps load, and prints the address space and the memory that this takes, GiB."""


def peak_gb(out: Path, session: Session) -> float:
    """Largest peak of a session's steps, from the run's ``stages.tsv``, GiB."""
    (path,) = out.glob("logs/*/stages.tsv")
    with path.open(newline="", encoding="utf-8") as table:
        rows = [
            row
            for row in csv.DictReader(table, delimiter="\t")
            if row["session"] == session.prefix.replace("-", "_")
        ]
    return max(float(row["peak_gb"]) for row in rows)


def main() -> None:
    """Print the JSON line."""
    loaded = subprocess.run([sys.executable, "-c", LIBRARIES], check=True, capture_output=True, text=True)
    address, memory = map(float, loaded.stdout.split())
    with TemporaryDirectory() as directory:
        root = Path(directory)
        write_dataset(root / "bids", SPECS)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "bids_wmh_uad",
                root / "bids",
                root / "run",
                "participant",
                "-w",
                root / "run" / "work",
                "--nprocs",
                "1",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        sessions = {}
        for session in find_sessions(root / "bids", Selection())[0]:
            need, voxels = session_gb(session)
            peak = peak_gb(root / "run", session)
            sessions[session.label] = {
                "million_voxels": voxels,
                "peak_gb": peak,
                "need_gb": need,
                "ratio": peak / need,
            }
    content = {
        "sessions": sessions,
        "libraries": {"address_gb": address, "memory_gb": memory},
        "least_address_gb": LEAST_ADDRESS_GB,
    }
    print(json.dumps({"name": "memory", **content}))


if __name__ == "__main__":
    main()
