"""The same session with FLAIR voxels of other sizes: threshold, volume and Dice of its mask, which should not depend on them.

One JSON line. A session with voxels of 1 mm in plane (the real ones that `detection.py` has preprocessed; ``--cases`` chooses)
is taken as it is, and as if its slices had been stored with voxels of ``--mm``: the map, made on the working grid, is the same, and comes to
those voxels by the program's own way (``own``), and by plain linear interpolation (``linear``), which puts faint rims around every score.

    python benchmarks/voxels.py --mm 0.9
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detection import Detection, collect_real, remembered_map
from numpy.typing import NDArray
from scans import Case

from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.core.image.volume import WorkingGrid
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.models import load_decision


def stored(case: Case, mm: float) -> Case:
    """The same session with other voxels in plane, whose working grid is the same."""
    grid, tissue = case.grid, case.tissue
    x, y, z = grid.shape
    shape = round(x / mm), round(y / mm), z
    new = WorkingGrid.from_affine(shape, np.diag([mm, mm, grid.zooms[2], 1.0]))
    if new.shape != grid.shape:
        raise SystemExit(f"{case.name}: {mm} mm gives another working grid")

    def brought(volume: NDArray[Any], order: Any = 1) -> NDArray[Any]:
        return new.backward(grid.forward(volume, order=order), order=order)

    mask, lesion, inside, landmarks = (
        brought(volume, 0) for volume in (tissue.mask, case.lesion, case.inside, case.landmarks)
    )
    contrasts = [brought(volume) for volume in (tissue.flair_z, tissue.t1w_z)]
    whole = Tissue(*contrasts, mask, brought(tissue.grey))
    affine = np.diag([mm, mm, grid.zooms[2], 1.0])
    return replace(case, tissue=whole, lesion=lesion, inside=inside, landmarks=landmarks, affine=affine)


def judged(case: Case, scores: NDArray[np.float32], evidence: NDArray[np.float32]) -> dict[str, float]:
    """What the label-free mask of a map is like."""
    decision = load_decision("default")
    found = Detection(scores, DetectionParameters(), decision, evidence).segment(case)
    mask = (found.lesions.labels > 0) & case.inside
    return {
        "threshold": round(found.measures["threshold"]["value"], 2),
        "ml": round(found.measures["wmh_volume_ml"], 2),
        "lesions": found.measures["lesion_count"],
        "candidates": found.measures["lesion_count"] + found.measures["rejected_count"],
        "dice": round(dice(mask, case.lesion & case.inside), 3),
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mm", type=float, default=0.9, help="voxels in plane")
    parser.add_argument("--cases", default="", help="only sessions whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for case in collect_real():
        if options.cases in case.name and np.allclose(case.zooms[:2], 1, atol=0.02):
            found = remembered_map(case, DetectionParameters(), seed=0)
            other = stored(case, options.mm)
            own, there = case.own(found), other.own(found)
            maps = (found.scores, found.evidence)
            linear = [np.where(other.tissue.mask, other.grid.backward(part), 0) for part in maps]
            rows[case.name] = {
                "1 mm": judged(case, own.scores, own.evidence),
                "own": judged(other, there.scores, there.evidence),
                "linear": judged(other, *linear),
            }
    print(json.dumps({"name": "voxels", "mm": options.mm, "sessions": rows}))


if __name__ == "__main__":
    main()
