"""The group level on 1,000 sessions of 1 mm results: table, page and prevalence map, time and memory.

One JSON line, in about two minutes on two cores. The sessions are made up (one brain of 1 mm, a
few lesions moved about) and written once; `ours_s` is one run of ``bids-wmh-uad ... group`` from the
command line, `peak_gib` the largest memory of the program and its processes together (proportional
set size, sampled). The peer brings the masks to the template with nilearn's `resample_img` (nearest
neighbour), the usual way to a prevalence map, on as many processes; it is a loop of equal work, so
it is timed on 40 sessions and scaled. `ratio` = peer / ours, although ours makes everything else, too.

    python benchmarks/group.py
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import nibabel as nib
import numpy as np
from joblib import Parallel, delayed
from nilearn.image import resample_img
from numpy.typing import NDArray
from programs import Cost, run
from scipy import ndimage

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.imaging import registration, templates

SESSIONS, TIMED, ALTERNATIONS = 1000, 40, 3
SHAPE = (182, 218, 182)
MASKS = 20
"""Different masks: the sessions take turns."""


def lesion_mask(seed: int) -> NDArray[np.uint8]:
    """About 20 mL of scattered lesions."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((91, 109, 91)).astype(np.float32), 2)
    smooth = np.kron(smooth, np.ones((2, 2, 2), dtype=np.float32))
    return np.asarray(smooth > np.sort(smooth, axis=None)[-20_000], dtype=np.uint8)


def write_dataset(out: Path) -> list[Path]:
    """Make the sessions; the masks' paths."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-90, -126, -72]
    source = out / "masks"
    source.mkdir(parents=True)
    for k in range(MASKS):
        nib.save(nib.Nifti1Image(lesion_mask(k), affine), source / f"{k}.nii.gz")
    masks = []
    for k in range(SESSIONS):
        session = Session(f"{k:04d}", None, Path(f"sub-{k:04d}_FLAIR.nii.gz"), Path())
        paths = {
            name: derivatives.output_path(out, session, name)
            for name in ("mask", "flair_to_template", "summary")
        }
        paths["mask"].parent.mkdir(parents=True)
        os.link(source / f"{k % MASKS}.nii.gz", paths["mask"])
        paths["flair_to_template"].write_text(registration.itk_text(np.diag([1.05, 0.97, 1.02, 1.0])))
        summary = {
            "participant_id": f"sub-{k:04d}", "session_id": "n/a", "status": "done", "wmh_volume_ml": 20.0 + k % 7,
            "lesion_count": 9, "largest_lesion_ml": 3.0, "icv_ml": 1400.0, "wmh_percent_icv": 1.4, "score": "directed",
            "threshold": {"name": "tail", "parameter": 3.0, "value": 2.0}, "model": {"name": "default"}, "warnings": [],
        }  # fmt: skip
        paths["summary"].write_bytes(dump_json(summary))
        masks.append(paths["mask"])
    return masks


def ours(out: Path) -> Cost:
    """What one run of the program costs."""
    return run([sys.executable, "-m", "bids_wmh_uad", "/none", out, "group", "-w", out / "work"])


def resampled(path: Path, affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """One mask on the template's grid, by nilearn."""
    image = nib.load(path)
    moved = nib.Nifti1Image(np.asanyarray(image.dataobj), np.diag([1.05, 0.97, 1.02, 1.0]) @ image.affine)
    grid = resample_img(moved, affine, shape, interpolation="nearest", copy_header=True, force_resample=True)
    return np.asanyarray(grid.dataobj).astype(np.uint8)


def main() -> None:
    """Print the JSON line."""
    template = templates.template("T1w", 2)
    cores = os.cpu_count() or 1
    jobs = Parallel(n_jobs=cores)
    times: dict[str, list[float]] = {"peer": [], "ours": []}
    peaks = []
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        masks = write_dataset(out)
        jobs(delayed(resampled)(path, template.affine, template.shape) for path in masks[:cores])
        for _ in range(ALTERNATIONS):
            start = perf_counter()
            jobs(delayed(resampled)(path, template.affine, template.shape) for path in masks[:TIMED])
            times["peer"].append((perf_counter() - start) * SESSIONS / TIMED)
            cost = ours(out)
            times["ours"].append(cost.seconds)
            peaks.append(cost.peak_bytes)
        page = (out / "group.html").stat().st_size
    print(
        json.dumps(
            {
                "name": "group",
                "peer": "nilearn resample_img of the masks alone",
                "peer_s": round(median(times["peer"]), 1),
                "ours_s": round(median(times["ours"]), 1),
                "ratio": round(median(p / o for p, o in zip(times["peer"], times["ours"], strict=True)), 1),
                "sessions": SESSIONS,
                "peak_gib": round(max(peaks) / 2**30, 2),
                "page_mb": round(page / 1e6, 2),
                "processes": cores,
            }
        )
    )


if __name__ == "__main__":
    main()
