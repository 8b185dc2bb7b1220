"""Rigid registration of FLAIR to T1w: how near to the truth and how fast, beside ANTs on the scans' own grids.

One JSON line. Phantoms with known motion between their scans (2 to 15 degrees and mm; slices of 1, 4 and 5 mm), brains
by deepbet, bias removed, as the program does; for each the mean and largest distance from the truth over the brain (mm)
and processor seconds. The peer is ``ants.registration`` with the same transform and metric on the scans' own grids, as
the program did before. ``ratio`` = its processor time over ours, the median over phantoms. About four minutes.

    python benchmarks/registration.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

os.environ |= {
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NO_ET": "1",
    "ANTS_RANDOM_SEED": "1",
}

import ants
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.imaging import registration
from bids_wmh_uad.imaging.bias import correct_bias
from bids_wmh_uad.imaging.brain import brain_mask
from bids_wmh_uad.phantom import PhantomSpec
from bids_wmh_uad.phantom.scanner import make_subject

SPECS = {
    "slices of 4 mm": PhantomSpec(seed=11),
    "far apart": PhantomSpec(seed=12, misalignment=15, oblique=10),
    "1 mm": PhantomSpec(seed=13, flair_zooms=(1, 1, 1)),
    "slices of 5 mm, noisy": PhantomSpec(seed=14, flair_zooms=(0.9, 0.9, 5), noise=0.08, misalignment=6),
}
STEP = 997
"""Every how many voxels of the brain distances are taken."""


def brain(scan: Any, name: str) -> nib.Nifti1Image:
    """A scan's brain without its bias field, on a background of 0."""
    image = nib.as_closest_canonical(scan)
    image = nib.Nifti1Image(np.asanyarray(image.dataobj).astype(np.float32), image.affine)
    mask, _ = brain_mask(image, Path(name), device="cpu")
    return nib.Nifti1Image(correct_bias(image, mask, levels=3) * mask, image.affine)


def peer(fixed: nib.Nifti1Image, moving: nib.Nifti1Image) -> NDArray[np.float64]:
    """ANTs on the scans' own grids."""
    images = [registration.to_ants(np.asanyarray(image.dataobj), image.affine) for image in (fixed, moving)]
    result = ants.registration(*images, type_of_transform="Rigid", aff_iterations=(500, 250, 100, 0))
    return np.asarray(np.linalg.inv(registration._read_itk(result["fwdtransforms"][0])))


def ours(fixed: nib.Nifti1Image, moving: nib.Nifti1Image) -> NDArray[np.float64]:
    """The program's."""
    return registration.register(fixed, moving, transform="Rigid", seed=1)


def measure(
    function: Any, flair: nib.Nifti1Image, t1w: nib.Nifti1Image, truth: NDArray[Any]
) -> dict[str, float]:
    """Distance from the truth, and processor time, of one registration."""
    start = process_time()
    matrix = function(t1w, flair)
    seconds = process_time() - start
    points = nib.affines.apply_affine(flair.affine, np.argwhere(np.asanyarray(flair.dataobj) > 0)[::STEP])
    distances = np.linalg.norm(
        nib.affines.apply_affine(matrix, points) - nib.affines.apply_affine(truth, points), axis=1
    )
    return {
        "mean_mm": round(float(distances.mean()), 3),
        "max_mm": round(float(distances.max()), 3),
        "cpu_s": round(seconds, 1),
    }


def main() -> None:
    """Print the JSON line."""
    results = {}
    for name, spec in SPECS.items():
        subject = make_subject(spec)
        flair, t1w = brain(subject.flair, f"{name}, FLAIR"), brain(subject.t1w, f"{name}, T1w")
        truth = np.linalg.inv(subject.t1w_to_flair)
        results[name] = {
            "peer": measure(peer, flair, t1w, truth),
            "ours": measure(ours, flair, t1w, truth),
        }
    ratio = median(result["peer"]["cpu_s"] / result["ours"]["cpu_s"] for result in results.values())
    print(json.dumps({"name": "registration", "ratio": round(ratio, 2), "phantoms": results}))


if __name__ == "__main__":
    main()
