"""A participant whose sessions were compared, as ``--longitudinal`` leaves it: for the tests of pages."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bids_wmh_uad.bids.derivatives import CHANGE_FIGURE, CHANGE_KINDS, CHANGE_OUTPUTS, longitudinal_path
from bids_wmh_uad.bids.tables import CHANGE_COLUMNS, write_table
from bids_wmh_uad.reports.figures.change import COLOURS, place_of, plot_change

SHAPE = (40, 48, 36)
WARNING = "ses-1 and ses-2 have other <b>voxel</b> sizes & look alike."
LESIONS: list[dict[str, Any]] = [
    {"index": 1, "status": "stable", "volume_before_mm3": 90.0, "volume_after_mm3": 92.0, "change_mm3": 1.0},
    {
        "index": 2,
        "status": "enlarging",
        "volume_before_mm3": 50.0,
        "volume_after_mm3": 80.0,
        "change_mm3": 31.0,
    },
    {"index": 3, "status": "new", "volume_before_mm3": 0.0, "volume_after_mm3": 36.0, "change_mm3": 35.0},
]


def write_followed(root: Path, sessions: int = 2, subject: str = "01") -> None:
    """Write the comparisons of some sessions: the summary, and a table and a figure for each pair."""
    labels = [f"ses-{number}" for number in range(1, sessions + 1)]
    pairs = [(before, after, "consecutive") for before, after in pairwise(labels)]
    pairs += [(labels[0], labels[-1], "total")] if sessions > 2 else []
    content = {
        "participant_id": f"sub-{subject}",
        "sessions": [
            {"session_id": label, "acq_time": f"202{k}-01-01T12:00:00", "years": float(k), "wmh_volume_ml": 4.0 + k, "volume_ml_lower": 3.0, "volume_ml_upper": 9.0}
            for k, label in enumerate(labels)
        ],
        "pairs": [write_pair(root, subject, *pair) for pair in pairs],
    }  # fmt: skip
    longitudinal_path(root, subject).write_text(json.dumps(content))


def write_pair(root: Path, subject: str, before: str, after: str, kind: str) -> dict[str, Any]:
    """Write table and figure of two sessions; what the summary says of them."""
    prefix, desc = f"sub-{subject}_{after}", CHANGE_KINDS[kind]
    anat = root / f"sub-{subject}" / after / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    rows = [
        row | {"change_mm3_lower": row["change_mm3"] - 5, "change_mm3_upper": row["change_mm3"] + 5, "x": 1.4, "y": -2.0, "z": 3.0}
        for row in LESIONS
    ]  # fmt: skip
    write_table(anat / f"{prefix}_{CHANGE_OUTPUTS['table'].format(kind=desc)}", rows, CHANGE_COLUMNS)
    draw(root / f"sub-{subject}" / "figures" / f"{prefix}_{CHANGE_FIGURE.format(kind=desc)}", prefix, kind)
    return {
        "session_before": before, "session_after": after, "kind": kind, "years": 2.0, "prefix": prefix,
        "change_ml": 0.5, "change_ml_lower": 0.25, "change_ml_upper": 0.75,
        "new_count": 1, "enlarging_count": 1, "stable_count": 1, "resolved_count": 0,
        "warnings": [{"code": "OTHER_VOXELS", "text": WARNING}],
    }  # fmt: skip


def draw(path: Path, prefix: str, kind: str) -> None:
    """A figure of noise in which lesion 3 is new and lesion 2 larger."""
    rng = np.random.default_rng(0)
    brain = np.zeros(SHAPE, np.uint8)
    brain[4:-4, 4:-4, 2:-2] = 1
    labels = {name: np.zeros(SHAPE, np.int32) for name in COLOURS}
    labels["new"][10:14, 20:23, 12:15] = 3
    labels["gained"][24:27, 20:23, 20:22] = 2
    first, second = (
        nib.Nifti1Image((rng.random(SHAPE) * brain).astype(np.float32), np.eye(4)) for _ in range(2)
    )
    plot_change(
        first, second, nib.Nifti1Image(brain, np.eye(4)),
        {name: nib.Nifti1Image(data, np.eye(4)) for name, data in labels.items()}, path,
        names=("before", "after"), prefix=place_of(prefix, kind),
    )  # fmt: skip
