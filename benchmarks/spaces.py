"""How a lesion mask should come to another space: what several ways make of its volume and its small lesions.

Each way is one resampling from the FLAIR's own grid, as ``--output-spaces`` has it::

    python -m bids_wmh_uad.phantom DATA --n-subjects 2 --n-controls 0 --slice-thickness 1 4 --seed 3
    bids-wmh-uad DATA OUT participant
    python benchmarks/spaces.py DATA OUT

prints one JSON line: for each session, space and way, the ratio of the mask's volume to the FLAIR's mask's (of the
template's after its transform's change of volume), the median of that ratio over lesions below 50 mm3, and the share of these that
keep at least one voxel.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session, find_sessions
from bids_wmh_uad.bids.sidecars import SPACE_TRANSFORMS
from bids_wmh_uad.config import TEMPLATE, Selection
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.resampling import resample
from bids_wmh_uad.imaging.templates import template

SMALL_MM3 = 50.0
WAYS = {
    "nearest": ("mask", "nearest", 0.5),
    "linear mask >= 0.5": ("mask", "linear", 0.5),
    "linear probability >= 0.5": ("probability", "linear", 0.5),
    "linear probability >= 0.25": ("probability", "linear", 0.25),
}
"""What is resampled, how, and where it is cut."""


def compare(out: Path, session: Session, space: str) -> dict[str, dict[str, Any]]:
    """The figures of each way for one session and space."""
    images = {
        name: nib.load(derivatives.output_path(out, session, name))
        for name in ("mask", "probability", "lesions")
    }
    transform = read_transform(derivatives.output_path(out, session, SPACE_TRANSFORMS[space]))
    grid, matrix = (
        (template("T1w"), transform)
        if space == TEMPLATE
        else (read_grid(session.t1w), np.linalg.inv(transform))
    )
    growth = abs(np.linalg.det(matrix[:3, :3])) * volume(images["mask"]) / volume(grid)
    lesions = np.asanyarray(images["lesions"].dataobj)
    before = np.bincount(lesions.ravel())[1:]
    small = before * volume(images["mask"]) < SMALL_MM3
    # whose voxel each is: the nearest lesion's of those near
    whose = resample(images["lesions"], grid, matrix, interpolation="nearest").astype(int)
    found = {}
    for way, (name, interpolation, level) in WAYS.items():
        moved = resample(images[name], grid, matrix, interpolation=interpolation) >= level
        after = np.bincount(whose[moved], minlength=len(before) + 1)[1:]
        ratios = after[small] / (before[small] * growth)
        found[way] = {
            "volume_ratio": round(float(moved.sum() / (before.sum() * growth)), 4),
            "small_median_ratio": round(float(np.median(ratios)), 3) if small.any() else None,
            "small_kept": round(float((ratios > 0).mean()), 3) if small.any() else None,
        }
    return {"lesions": {"all": len(before), "small": int(small.sum())}} | found


def volume(image: Any) -> float:
    """Of a voxel, mm3."""
    affine: NDArray[Any] = image.affine
    return float(abs(np.linalg.det(affine[:3, :3])))


def main() -> None:
    """Print the line."""
    warnings.filterwarnings("ignore", message="Resampling binary images")  # one of the ways
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("output_dir", type=Path)
    args = parser.parse_args()
    sessions, _ = find_sessions(args.bids_dir.resolve(), Selection())
    line = {
        session.label: {space: compare(args.output_dir, session, space) for space in SPACE_TRANSFORMS}
        for session in sessions
        if derivatives.output_path(args.output_dir, session, "summary").is_file()
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
