"""The ground that faults are laid on: a phantom dataset whose sessions take seconds, and its undisturbed results.

A session is a few axial slices of the phantom. Its preprocessing is made up from what is known of the phantom and
given to the program as results of an earlier run (``--derivatives``), and the score is ``brightness``: everything but
preprocessing and the network really runs.
"""

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

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session, find_sessions
from bids_wmh_uad.config import Selection
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.imaging import registration, resampling
from bids_wmh_uad.reports.methods import METHODS_FILES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bids_wmh_uad.phantom import PhantomSubject

REPOSITORY = Path(__file__).parents[2]
SLICES = slice(9, 19)
"""Through the ventricles: lesions are there."""
METHOD = ("--score", "brightness", "--nprocs", "1", "--omp-nthreads", "1")
TRAINING = ("--epochs", "2", "--patches-per-epoch", "128", "--batch-size", "32", "--paradigm", "patient")
TIMEOUT = 900


def environment(**changes: str | None) -> dict[str, str]:
    """The environment of a run: this one's, and the repository importable; None takes a variable away."""
    # a relative path would be looked for in a working directory that may not be there
    path = os.pathsep.join([str(REPOSITORY), *(part for part in sys.path if Path(part).is_absolute())])
    whole = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **changes}
    return {name: value for name, value in whole.items() if value is not None}


def command(bids: Path, out: Path, level: str, *options: str | Path) -> list[str]:
    """The program's command line; the work directory is in `out`, unless the options name another."""
    parts = (bids, out, level, "-w", out / "work", *options)
    return [sys.executable, "-m", "bids_wmh_uad", *map(str, parts)]


def call(bids: Path, out: Path, level: str, *options: str | Path) -> str:
    """Run the program undisturbed; what it said."""
    ran = subprocess.run(
        command(bids, out, level, *options), env=environment(), text=True, check=False, timeout=TIMEOUT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


@dataclass(frozen=True)
class Ground:
    """A dataset and what comes of it undisturbed.

    Attributes
    ----------
    bids, earlier : Path
        The raw dataset, and the made-up preprocessing for ``--derivatives``.
    out, work : Path
        Results of both participants, and the work directory that they were made in.
    """

    bids: Path
    earlier: Path
    out: Path
    work: Path

    @property
    def options(self) -> tuple[str | Path, ...]:
        """What makes a participant run short."""
        return ("-d", self.earlier, *METHOD)


def save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def slab(image: Any, part: slice = SLICES) -> Any:
    return nib.as_closest_canonical(image).slicer[:, :, part]


def make_ground(root: Path, phantom: PhantomSubject) -> Ground:
    """Write the dataset and the made-up preprocessing, and run both participants once."""
    ground = Ground(root / "bids", root / "earlier", root / "out", root / "work")
    for label in ("01", "02"):
        add_subject(ground.bids, label, phantom)
    describe(ground.bids)
    for session in find_sessions(ground.bids, Selection())[0]:
        make_up_preprocessing(ground.earlier, session, phantom)
    call(ground.bids, ground.out, "participant", *ground.options, "-w", ground.work)
    return ground


def describe(bids: Path) -> None:
    bids.mkdir(parents=True, exist_ok=True)
    (bids / "dataset_description.json").write_text('{"Name": "faults", "BIDSVersion": "1.10.0"}')


def add_subject(
    bids: Path, label: str, phantom: PhantomSubject, flair: str = "FLAIR", t1w: str = "T1w", folder: str = ""
) -> Path:
    """Write both scans of one participant; where they lie."""
    anat = bids / f"sub-{label}" / folder / "anat"
    for suffix, made in ((flair, slab(phantom.flair)), (t1w, phantom.t1w)):
        image = nib.Nifti1Image(np.asanyarray(made.dataobj), made.affine, made.header)
        image.header["descrip"] = label.encode()[:80]  # another file
        save(image, anat / f"sub-{label}_{suffix}.nii.gz")
    return anat


def make_up_preprocessing(root: Path, session: Session, phantom: PhantomSubject) -> None:
    """What the program would have left of a session's preprocessing, from what is known of the phantom."""
    flair, brain = slab(phantom.flair), slab(phantom.brain)
    brain.header.set_data_dtype(np.uint8)
    t1w = resampling.resample(phantom.t1w, flair, phantom.t1w_to_flair)
    images = {
        "flair": np.asanyarray(flair.dataobj).astype(np.float32), "t1w": np.maximum(t1w, 0),
        "brain": np.asanyarray(brain.dataobj).astype(np.uint8),
    }  # fmt: skip
    inside = images["brain"] > 0
    for name, data in images.items():
        path = derivatives.output_path(root, session, name)
        save(nib.Nifti1Image(data, flair.affine), path)
        values = data[inside]
        white = {"mode": float(np.median(values)), "scale": float(values.std())}
        derivatives.sidecar_path(path).write_text(json.dumps({"WhiteMatter": white, "SkullStripped": True}))
    for name, matrix in (("t1w_to_flair", phantom.t1w_to_flair), ("t1w_to_template", np.eye(4))):
        derivatives.output_path(root, session, name).write_text(registration.itk_text(matrix))
    summary = {
        "participant_id": f"sub-{session.subject}", "session_id": "n/a", "status": "done",
        "preprocessing": derivatives.preprocessing_signature(session, 0), "registration_overlap": 0.97,
    }  # fmt: skip
    derivatives.output_path(root, session, "summary").write_bytes(dump_json(summary))


def files_below(root: Path, ignored: Sequence[str] = ("logs", "work")) -> dict[str, bytes]:
    """Content of every regular file, by its path; without logs and intermediate files."""
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
    relative = ((path, path.relative_to(root)) for path in found)
    return {str(name): path.read_bytes() for path, name in relative if name.parts[0] not in ignored}


def results_of(files: Mapping[str, bytes], label: str) -> dict[str, bytes]:
    """One participant's results among `files`: what lies in its directory."""
    return {name: content for name, content in files.items() if name.startswith(f"sub-{label}/")}


def copy(ground: Ground, root: Path, *, done: Sequence[str] = ("01",), out_name: str = "out") -> Ground:
    """The same ground elsewhere, where only the participants `done` have results."""
    new = Ground(root / "bids", ground.earlier, root / out_name, root / out_name / "work")
    shutil.copytree(ground.bids, new.bids)
    new.out.mkdir()
    for name in ("dataset_description.json", ".bidsignore", *METHODS_FILES):
        shutil.copy(ground.out / name, new.out / name)
    derivatives.write_dataset_files(new.out, new.bids)
    for label in done:
        shutil.copytree(ground.out / f"sub-{label}", new.out / f"sub-{label}")
        shutil.copy(ground.out / f"sub-{label}.html", new.out / f"sub-{label}.html")
    return new
