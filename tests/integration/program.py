"""Running the whole program, and what its runs share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.config import Selection

if TYPE_CHECKING:
    from bids_wmh_uad.bids.dataset import Session

GOOD = {"sub-01": ("01", None), "sub-02/ses-1": ("02", "1")}
IMAGES = (
    "flair",
    "t1w",
    "brain",
    "anomaly",
    "evidence",
    "probability",
    "mask",
    "lesions",
    "rejected",
    "regions",
    "lobes",
)


@dataclass(frozen=True)
class Run:
    """One run of the program, and where it read and wrote."""

    bids_dir: Path
    output_dir: Path
    code: int
    log: str

    def session(self, label: str) -> Session:
        subject, session = GOOD[label]
        sessions, _ = find_sessions(self.bids_dir, Selection(participant_label=(subject,)))
        return next(found for found in sessions if found.session == session)

    def path(self, label: str, output: str, space: str = "FLAIR") -> Path:
        return derivatives.output_path(self.output_dir, self.session(label), output, space)


def wmh(bids_dir: Path, output_dir: Path, level: str, *options: str | Path) -> Run:
    command = [
        sys.executable,
        "-m",
        "bids_wmh_uad",
        bids_dir,
        output_dir,
        level,
        "-w",
        work_of(output_dir),
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    ran = subprocess.run(
        [str(part) for part in command], env=environment, text=True, check=False, timeout=1500,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return Run(bids_dir, output_dir, ran.returncode, ran.stdout)


def work_of(output_dir: Path) -> Path:
    """The work directory of runs that do not name another."""
    return output_dir.with_name(f"{output_dir.name}-work")


def participant(bids_dir: Path, output_dir: Path, model: Path, *options: str | Path) -> Run:
    return wmh(bids_dir, output_dir, "participant", "--model", model, "--omp-nthreads", "1", *options)


def save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def turned(image: Any) -> Any:
    """The same image in another order of storage, as float32, with NaN around the brain."""
    other = image.as_reoriented(nib.orientations.axcodes2ornt("PSR"))
    data = np.asanyarray(other.dataobj, dtype=np.float32)
    return nib.Nifti1Image(np.where(data == 0, np.nan, data), other.affine)


def validator_errors(dataset: Path) -> list[Any]:
    """What the official validator calls an error."""
    return [issue for issue in validator_issues(dataset) if issue.get("severity", "error") == "error"]


def validator_issues(dataset: Path) -> list[Any]:
    """All errors and warnings of the official validator."""
    beside = Path(sys.executable).with_name("bids-validator-deno")
    validator = str(beside) if beside.is_file() else shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    command = [validator, "--format", "json", str(dataset)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return list(json.loads(ran.stdout)["issues"]["issues"])


def undescribed_columns(dataset: Path) -> set[tuple[str, str]]:
    """Tables and their columns that no sidecar describes; BIDS itself describes the first two of a look-up table."""
    found = set()
    for path in (*dataset.glob("*.tsv"), *dataset.glob("sub-*/**/*.tsv")):
        sidecar = path.with_suffix(".json")
        known = json.loads(sidecar.read_text())
        own = {"index", "name"} if path.name.endswith("_dseg.tsv") else set()
        columns = path.read_text().splitlines()[0].split("\t")
        found |= {
            (path.name, name)
            for name in columns
            if name not in own and not known.get(name, {}).get("Description")
        }
    return found
