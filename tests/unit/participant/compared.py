"""Finished sessions of a small made brain, as the participant level leaves what ``--longitudinal`` reads."""

import json

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.imaging.registration import itk_text
from bids_wmh_uad.imaging.scans import as_image

SHAPE, ZOOMS = (64, 72, 56), (2.0, 2.0, 2.5)
OLD, NEW = (80.0, 60.0, 90.0), (50.0, 90.0, 80.0)
"""Centres of lesions, mm from the head's corner."""


def _inside(places, centre, radii):
    return (((places - centre) / radii) ** 2).sum(axis=-1) <= 1


def write_session(
    root, subject, session, lesions, *, seed=0, shift=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), acq_time=None
):
    """Write one session whose head is shifted by so many mm, and larger by a scale, with lesions of 6 mm radius; its summary's path."""
    rng = np.random.default_rng(seed)
    affine = np.diag([*ZOOMS, 1.0])
    affine[:3, 3] = (-64, -72, -70)
    centre = np.array((64, 72, 70))
    places = (np.indices(SHAPE).transpose(1, 2, 3, 0) * ZOOMS - np.array(shift) - centre) / scale + centre
    brain = _inside(places, (64, 72, 70), (48, 58, 52))
    white = _inside(places, (64, 72, 70), (38, 46, 42)) & ~_inside(places, (64, 72, 70), (8, 16, 9))
    folds = 0.15 * np.sin(places / 5.0).prod(axis=-1)  # something for the registration to hold on to
    labels = np.zeros(SHAPE, np.int32)
    for number, centre in enumerate(lesions, start=1):
        labels[_inside(places, centre, (6, 6, 6))] = number
    flair = np.where(white, 1.0, 1.3) + folds * ~white + 0.5 * (labels > 0)
    t1w = np.where(white, 1.0, 0.7) - folds * ~white - 0.1 * (labels > 0)
    images = {
        name: (ndimage.gaussian_filter(image + 0.02 * rng.normal(size=SHAPE), 0.5) * brain * 100).astype(
            np.float32
        )
        for name, image in (("flair", flair), ("t1w", t1w))
    }
    images |= {
        "brain": brain.astype(np.uint8),
        "lesions": labels,
    }
    images["regions"] = np.zeros(SHAPE, np.uint8)
    prefix = f"sub-{subject}_ses-{session}"
    summary = (
        derivatives.session_directory(root, subject, session) / f"{prefix}_{derivatives.OUTPUTS['summary']}"
    )
    summary.parent.mkdir(parents=True, exist_ok=True)
    for name, values in images.items():
        path = result_path(summary, name)
        nib.save(as_image(values, affine), path)
        derivatives.sidecar_path(path).write_text(json.dumps({"WhiteMatter": {"mode": 100.0, "scale": 4.0}}))
    result_path(summary, "flair_to_template").write_text(itk_text(np.eye(4)))
    content = {
        "participant_id": f"sub-{subject}", "session_id": f"ses-{session}", "status": "done",
        "wmh_volume_ml": 0.9 * len(lesions), "Sources": [f"bids:raw:{prefix}_FLAIR.nii.gz"],
        "inputs": {"FLAIR": {"voxel_size_mm": list(ZOOMS), "Manufacturer": "A" if session != "3" else "B"}},
    }  # fmt: skip
    summary.write_text(json.dumps(content))
    if acq_time:
        table = root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
        line = f"ses-{session}\t{acq_time}\n"
        table.write_text((table.read_text() if table.is_file() else "session_id\tacq_time\n") + line)
    return summary
