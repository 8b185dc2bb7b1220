"""Many processes and one output directory, as in a cluster's array: nobody reads half a file, nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_wmh_uad.bids.derivatives import BIDSIGNORE
from bids_wmh_uad.errors import MISSING_T1W, MissingInputError

pytestmark = pytest.mark.slow
Maker = Callable[..., Path]
TASKS = 6
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
WRITER = """
import sys
from pathlib import Path
from bids_wmh_uad.bids.derivatives import write_dataset_files
from bids_wmh_uad.files import write_atomically
out, number = Path(sys.argv[1]), int(sys.argv[2])
for turn in range(150):
    write_dataset_files(out, Path(f"/raw{'x' * 1000 * (turn % 5 + number)}"))
    write_atomically(out / "CITATION.md", b"begin" + b"." * (5000 * (turn % 5 + number)) + b"end")
"""
"""Writes other content every time, of another length: what an interleaved or half-done write would show."""


def test_a_file_that_many_write_is_whole_at_every_moment(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, str(number)], env=ENVIRONMENT)
        for number in range(TASKS)
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        try:
            description = json.loads((tmp_path / "dataset_description.json").read_text())
            citation = (tmp_path / "CITATION.md").read_bytes()
            ignored = (tmp_path / ".bidsignore").read_text()
        except FileNotFoundError:  # nobody has written yet
            continue
        assert description["DatasetType"] == "derivative"
        assert (citation[:5], citation[-3:]) == (b"begin", b"end")
        assert tuple(ignored.split()) == BIDSIGNORE
        seen.add(len(citation))
    assert [writer.wait() for writer in writers] == [0] * TASKS
    assert len(seen) > 1  # the reader saw the file change
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".bidsignore",
        "CITATION.md",
        "README.md",
        "dataset_description.json",
    ]


def test_runs_at_the_same_time_keep_apart(tmp_path: Path, make_dataset: Maker) -> None:
    names = [f"sub-{number:02d}/anat/sub-{number:02d}_FLAIR.nii.gz" for number in range(TASKS)]
    root, out = make_dataset(tmp_path / "ds", *names), tmp_path / "out"
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "bids_wmh_uad", root, out, "participant", "-w", tmp_path / "work", "--participant-label",
             f"{number:02d}"],
            env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(TASKS)
    ]  # fmt: skip
    assert [run.wait(timeout=400) for run in runs] == [MissingInputError.exit_code] * TASKS
    for number, name in enumerate(names):
        label = f"sub-{number:02d}"
        failure = json.loads((out / label / "anat" / f"{label}_desc-failed_summary.json").read_text())
        assert failure["reason"] == MISSING_T1W.format(where=label, flair=root / name)
        assert label in (out / f"{label}.html").read_text()
    logs = [path.read_text() for path in (out / "logs").glob("*/bids-wmh-uad.log")]
    assert len(logs) == TASKS
    assert all(log.count("FAILED") == 1 for log in logs)
    assert not list(out.rglob(".tmp-*"))
