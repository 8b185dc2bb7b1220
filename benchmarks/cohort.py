"""What a cohort costs at the participant level: sessions an hour, processor time, memory, and what is no tool's own work.

One JSON line. Sessions are copies, under new labels, of real raw scans (sub-lg20 of ``ms-raw``, where the real scans
are there: ``../shared/data`` beside the repository, or ``BIDS_WMH_UAD_TEST_DATA``) or of a phantom. For each size of
cohort: wall and processor seconds a session, sessions an hour, the largest memory of all processes together (GiB), each
step's median processor seconds, and the share of the processor time that belongs to no step (Python's start, imports,
the index, nipype's bookkeeping and hashes, the pages). ``floor_s`` is what a session would take if the steps alone
kept all workers busy. ``growth`` is the processor time a session of the largest cohort over that of the smallest.

With ``--against REV`` each size is run on that revision too, in turns; ``ratio`` is its processor time over this tree's,
``wall_ratio`` likewise. About half a minute a session.

    python benchmarks/cohort.py --sessions 1 8 32
    python benchmarks/cohort.py --sessions 1 4 --against 79f0d67 --rounds 3
"""

from __future__ import annotations

import argparse
import compileall
import csv
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from programs import Cost, run
from same_outputs import PACKAGE, extract, real_scans

from bids_wmh_uad.phantom import PhantomSpec
from bids_wmh_uad.phantom.dataset import write_dataset

TEMPLATE = ("lg20", "ses-2")
"""The real session that is copied."""


def write_cohort(root: Path, count: int) -> None:
    """A dataset of `count` participants with the same two scans."""
    real = real_scans()
    if real is None:
        source, prefix = root.with_name("phantom"), "sub-01"
        if not source.is_dir():
            write_dataset(source, [PhantomSpec(seed=1)], derivatives=None)
        anat = source / prefix / "anat"
    else:
        subject, session = TEMPLATE
        source, prefix = real / "ms-raw", f"sub-{subject}_{session}"
        anat = source / f"sub-{subject}" / session / "anat"
    for number in range(1, count + 1):
        target = root / f"sub-{number:03d}" / "anat"
        target.mkdir(parents=True)
        for path in anat.iterdir():
            shutil.copy(path, target / path.name.replace(prefix, f"sub-{number:03d}"))
    description = {"Name": "Copies of one session", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(description))


def cpu_of_steps(out: Path, sessions: int) -> dict[str, float]:
    """Median processor seconds of each step; empty where the revision did not write them down."""
    (path,) = out.glob("logs/*/stages.tsv")
    with path.open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    steps: dict[str, list[float]] = {}
    for row in rows:
        if "cpu_seconds" in row:
            steps.setdefault(row["stage"], []).append(float(row["cpu_seconds"]))
    return {step: median(values) * len(values) / sessions for step, values in steps.items()}


def measure(code: Path, bids: Path, root: Path, nprocs: int) -> tuple[Cost, dict[str, float], int]:
    """One run of the participant level on all of a dataset, in new directories."""
    out, work = root / "out", root / "work"
    sessions = len(list(bids.glob("sub-*")))
    command = [sys.executable, "-m", PACKAGE, bids, out, "participant", "-w", work, "--nprocs", str(nprocs)]
    cost = run(list(map(str, command)), os.environ | {"PYTHONPATH": str(code), "NO_ET": "1"}, code)
    steps = cpu_of_steps(out, sessions)
    for path in (out, work):
        shutil.rmtree(path)
    return cost, steps, sessions


def described(cost: Cost, steps: dict[str, float], sessions: int, nprocs: int) -> dict[str, Any]:
    """A run's numbers, a session."""
    result: dict[str, Any] = {
        "wall_s": round(cost.seconds / sessions, 1),
        "cpu_s": round(cost.cpu_seconds / sessions, 1),
        "sessions_an_hour": round(3600 * sessions / cost.seconds, 1),
        "peak_gib": round(cost.peak_bytes / 2**30, 2),
    }
    if steps:
        tools = sum(steps.values())
        result["in_no_step"] = round(1 - tools * sessions / cost.cpu_seconds, 3)
        result["floor_s"] = round(tools / nprocs, 1)
        result["steps_cpu_s"] = {step: round(value, 2) for step, value in steps.items()}
    return result


def cohort(root: Path, codes: dict[str, Path], count: int, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one size: the median run of each revision, and the ratios."""
    bids = root / f"bids-{count}"
    write_cohort(bids, count)
    runs: dict[str, list[tuple[Cost, dict[str, float], int]]] = {name: [] for name in codes}
    for _ in range(options.rounds):
        for name, code in codes.items():
            print(f"{name}: {count} sessions", file=sys.stderr)
            runs[name].append(measure(code, bids, root / "run", options.nprocs))
    middle = {
        name: sorted(results, key=lambda result: result[0].cpu_seconds)[len(results) // 2]
        for name, results in runs.items()
    }
    result = {name: described(*values, options.nprocs) for name, values in middle.items()}
    if options.against:
        both = list(zip(runs["against"], runs["ours"], strict=True))
        result["ratio"] = round(median(a[0].cpu_seconds / b[0].cpu_seconds for a, b in both), 2)
        result["wall_ratio"] = round(median(a[0].seconds / b[0].seconds for a, b in both), 2)
    return result


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--against", metavar="REV", help="git revision of this repository")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, in turns")
    parser.add_argument("--nprocs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="wmhcohort") as folder:
        root = Path(folder)
        codes = {}
        for name, revision in (("against", options.against), ("ours", None)):
            if name == "ours" or revision:
                extract(revision, root / name)
                compileall.compile_dir(root / name, quiet=1)  # else the first run would
                codes[name] = root / name
        sizes = {count: cohort(root, codes, count, options) for count in sorted(options.sessions)}
    ours = [sizes[count]["ours"]["cpu_s"] for count in (min(sizes), max(sizes))]
    line = {
        "name": "cohort",
        "against": options.against,
        "nprocs": options.nprocs,
        "real": real_scans() is not None,
    }
    print(json.dumps({**line, "sizes": sizes, "growth": round(ours[1] / ours[0], 2)}))


if __name__ == "__main__":
    main()
