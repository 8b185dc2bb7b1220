"""Made-up results of the participant level: small, and whole enough for the group level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from bids_wmh_uad import files
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.names import read_name
from bids_wmh_uad.bids.references import Reference
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.config import Group, GroupConfig, Method, Running, Selection
from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.group.evaluation import evaluate_session
from bids_wmh_uad.imaging import registration

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = (16, 14, 6)
AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
VOXEL_ML = 0.003
THRESHOLD = 0.9
"""The made-up maps are above 1 in lesions and below 0.5 elsewhere."""


def evaluate(path: Path, reference: Path, **options: Any) -> Any:
    found = Reference(reference, read_name(reference.name).entities.get("space"))
    return evaluate_session(path, found, result_path(path, "mask"), THRESHOLD, **options)


def measures_of(path: Path, reference: Path) -> Any:
    return evaluate(path, reference).row


def truth_mask() -> NDArray[np.uint8]:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:8, 4:9, 2:4] = 1
    return mask


def region_map() -> NDArray[np.uint8]:
    """Ventricles that touch the lesion of `truth_mask`."""
    regions = np.zeros(SHAPE, np.uint8)
    regions[9:11, 4:9, 2:4] = Landmark.VENTRICLES
    return regions


def save(path: Path, data: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def summary(subject: str, session: str | None = None, **values: Any) -> dict[str, Any]:
    made = {
        "participant_id": f"sub-{subject}", "session_id": f"ses-{session}" if session else "n/a", "status": "done",
        "wmh_volume_ml": 0.12, "lesion_count": 1, "largest_lesion_ml": 0.12, "icv_ml": 1.2, "wmh_percent_icv": 10.0,
        "threshold": {"name": "tail", "parameter": 6.0, "value": 2.5}, "model": {"name": "default", "digest": "0"},
        "score": "directed", "registration_overlap": 0.97, "warnings": [{"code": "LOOK", "text": "look"}],
    }  # fmt: skip
    return made | values


def write_summary(out: Path, content: dict[str, Any]) -> Path:
    subject, session = content["participant_id"][4:], content["session_id"]
    found = Session(
        subject, None if session == "n/a" else session[4:], Path(f"sub-{subject}_FLAIR.nii.gz"), Path()
    )
    path = derivatives.output_path(out, found, "summary")
    files.write_atomically(path, files.dump_json(content))
    return path


def write_session(
    out: Path, subject: str, session: str | None = None, mask: NDArray[Any] | None = None
) -> Path:
    """A finished session whose map is brightest where its mask is, on a FLAIR that shows nothing."""
    path = write_summary(out, summary(subject, session))
    start = str(path).removesuffix(derivatives.OUTPUTS["summary"])
    mask = truth_mask() if mask is None else mask
    rng = np.random.default_rng(0)
    flair = rng.normal(100, 10, SHAPE)
    images = {
        "brain": np.ones(SHAPE, np.uint8), "mask": mask,
        "anomaly": (mask + 0.5 * rng.random(SHAPE)).astype(np.float32),
        "flair": flair.astype(np.float32),
        "t1w": (200 - flair + rng.normal(0, 5, SHAPE)).astype(np.float32),
        "evidence": np.zeros(SHAPE, np.float32),
        "brightness": rng.random(SHAPE).astype(np.float32),
        "regions": region_map(),
    }  # fmt: skip
    for name, data in images.items():
        save(Path(start + derivatives.OUTPUTS[name]), data)
    for name in ("flair", "t1w"):
        sidecar = derivatives.sidecar_path(Path(start + derivatives.OUTPUTS[name]))
        sidecar.write_text(json.dumps({"WhiteMatter": {"mode": 100.0, "scale": 10.0}}))
    to_template = Path(start + derivatives.OUTPUTS["flair_to_template"])
    to_template.write_text(registration.itk_text(np.eye(4)))
    return path


def write_failure(out: Path, subject: str, session: str | None, reason: str) -> None:
    content = {"participant_id": f"sub-{subject}", "session_id": f"ses-{session}" if session else "n/a",
               "status": "failed", "reason": reason}  # fmt: skip
    files.write_atomically(derivatives.failure_path(out, subject, session), files.dump_json(content))


def reference_path(root: Path, subject: str, session: str | None = None, label: str = "WMH") -> Path:
    anat = derivatives.session_directory(root, subject, session)
    middle = f"_ses-{session}" if session else ""
    return anat / f"sub-{subject}{middle}_space-FLAIR_label-{label}_mask.nii.gz"


def config(
    out: Path, bids_dir: Path = Path("/none"), method: Method | None = None, **settings: Any
) -> GroupConfig:
    """Settings of a group run; `settings` are those of the group level."""
    return GroupConfig(
        bids_dir,
        out,
        "group",
        method=method or Method(),
        running=Running(work_dir=out / "work"),
        selection=Selection(resample_reference=settings.pop("resample_reference", False)),
        group=Group(**settings),
    )
