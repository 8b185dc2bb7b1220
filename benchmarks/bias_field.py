"""How flexible may the bias field be? Average precision of the plain FLAIR z-score after N4.

One JSON line: for each scan of a dataset with reference masks, and each number of N4 levels
(0 = no correction), the average precision inside the brain of the smoothed FLAIR z-score.
A field that follows lesions lowers it. About two minutes for the five development scans.

    python benchmarks/bias_field.py [../shared/data/ms-mni]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

LEVELS = (0, 1, 2, 3, 4)


def average_precisions(flair: Path, truth: Path) -> dict[str, float]:
    """Average precision of one scan by number of levels; the scan is skull-stripped, in template space."""
    import nibabel as nib
    from scipy.ndimage import binary_fill_holes

    from bids_wmh_uad.core.evaluation.threshold_free import average_precision
    from bids_wmh_uad.core.image.intensity import fit_scaling, smooth_inside
    from bids_wmh_uad.core.parameters import DetectionParameters
    from bids_wmh_uad.imaging import bias, resampling, scans, templates

    image = scans.read_scan(flair)
    lesions = np.asanyarray(nib.as_closest_canonical(nib.load(truth)).dataobj) > 0
    data = np.asanyarray(image.dataobj)
    brain = binary_fill_holes(data != 0)
    reference = brain & (resampling.resample(templates.template("WM"), image, np.eye(4)) > 0.9)
    result = {}
    for levels in LEVELS:
        corrected = bias.correct_bias(image, brain, levels=levels) if levels else data
        z = fit_scaling(corrected, brain & reference).apply(corrected)
        smoothed = smooth_inside(z, brain, image.header.get_zooms(), DetectionParameters.sigma_mm)
        result[str(levels)] = round(average_precision(smoothed[brain], lesions[brain]), 3)
    return result


def main() -> None:
    """Print the JSON line."""
    os.environ |= {"NO_ET": "1", "ANTS_RANDOM_SEED": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/ms-mni")
    start = perf_counter()
    scans = {}
    for flair in sorted(root.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz")):
        name = flair.name.removesuffix("_FLAIR.nii.gz")
        anat = root / "derivatives/manual" / flair.parent.relative_to(root)
        scans[name] = average_precisions(flair, anat / f"{name}_label-lesion_mask.nii.gz")
    mean = {str(k): round(float(np.mean([scan[str(k)] for scan in scans.values()])), 3) for k in LEVELS}
    print(
        json.dumps(
            {"name": "bias_field", "seconds": round(perf_counter() - start), "mean": mean, "ap": scans}
        )
    )


if __name__ == "__main__":
    main()
