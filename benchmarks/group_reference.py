"""The group level with ``--reference`` on sessions of 1 mm: every measure, its curves, statistics and the page.

One JSON line. Sessions are made up (a brain of 1.5 million voxels, lesions moved about, maps that follow them
with noise), twenty different ones written once and linked; `ours_s` is one run of ``bids-wmh-uad ... group --reference``
from the command line. The peer reads the same images with nibabel and takes three numbers of them, scikit-learn's average
precision of each map, on as many processes: the least that anybody would do. It is a loop of equal work, so it is timed on
40 sessions and scaled. `ratio` = peer / ours, although ours makes everything else, too.

    python benchmarks/group_reference.py --sessions 1000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import nibabel as nib
import numpy as np
from group import SHAPE, lesion_mask
from joblib import Parallel, delayed
from programs import run
from scipy import ndimage
from sklearn.metrics import average_precision_score

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.imaging import registration

DIFFERENT, TIMED = 20, 40
AFFINE = np.array([[1.0, 0, 0, -90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
MAPS = ("anomaly", "brightness", "flair")


def write_images(folder: Path, seed: int) -> None:
    """One session's images, and its reference."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE), indexing="ij", sparse=True)
    brain = sum(axis**2 for axis in axes) < 0.54
    truth = (lesion_mask(seed)[tuple(slice(n) for n in SHAPE)] > 0) & brain
    images = {"brain": brain.astype(np.uint8), "reference": truth.astype(np.uint8)}
    for name in MAPS:
        noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), 1)
        score = noise / noise.std() + 2 * truth
        images[name] = np.where(brain, 100 + 10 * score if name == "flair" else np.maximum(score, 0), 0)
    images["mask"] = (images["anomaly"] > 2).astype(np.uint8)
    folder.mkdir(parents=True)
    for name, data in images.items():
        image = nib.Nifti1Image(data.astype(np.uint8 if data.dtype == np.uint8 else np.float32), AFFINE)
        nib.save(image, folder / f"{name}.nii.gz")


def write_dataset(out: Path, references: Path, count: int) -> None:
    """The sessions, and their reference masks."""
    for seed in range(DIFFERENT):
        write_images(out.parent / f"{seed}", seed)
    for number in range(count):
        source, label = out.parent / f"{number % DIFFERENT}", f"sub-{number:04d}"
        session = Session(label[4:], None, Path(f"{label}_FLAIR.nii.gz"), Path())
        paths = {name: derivatives.output_path(out, session, name) for name in derivatives.OUTPUTS}
        paths["mask"].parent.mkdir(parents=True)
        for name in ("brain", "mask", *MAPS):
            os.link(source / f"{name}.nii.gz", paths[name])
        reference = references / label / "anat" / f"{label}_label-WMH_mask.nii.gz"
        reference.parent.mkdir(parents=True)
        os.link(source / "reference.nii.gz", reference)
        derivatives.sidecar_path(paths["flair"]).write_text('{"WhiteMatter": {"mode": 100, "scale": 10}}')
        paths["flair_to_template"].write_text(registration.itk_text(np.eye(4)))
        summary = {
            "participant_id": label, "session_id": "n/a", "status": "done", "wmh_volume_ml": 20.0, "lesion_count": 9,
            "largest_lesion_ml": 3.0, "icv_ml": 1400.0, "wmh_percent_icv": 1.4, "score": "directed", "warnings": [],
            "threshold": {"name": "tail", "parameter": 3.0, "value": 2.0}, "model": {"name": "default"},
        }  # fmt: skip
        paths["summary"].write_bytes(dump_json(summary))


def peer(folder: Path) -> list[float]:
    """Average precision of each map, by scikit-learn."""
    brain, truth, *maps = (
        np.asanyarray(nib.load(folder / f"{name}.nii.gz").dataobj) for name in ("brain", "reference", *MAPS)
    )
    inside = brain > 0
    return [float(average_precision_score(truth[inside], score[inside])) for score in maps]


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=100)
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    jobs = Parallel(n_jobs=cores)
    with TemporaryDirectory(prefix="wmhgroup") as folder:
        root, out = Path(folder), Path(folder) / "out"
        write_dataset(out, root / "references", options.sessions)
        jobs(delayed(peer)(root / "0") for _ in range(cores))
        start = perf_counter()
        jobs(delayed(peer)(root / f"{number % DIFFERENT}") for number in range(TIMED))
        peer_s = (perf_counter() - start) * options.sessions / TIMED
        command = [sys.executable, "-m", "bids_wmh_uad", "/none", out, "group", "-w", root / "work"]
        cost = run([*command, "--reference", root / "references"])
    print(
        json.dumps(
            {
                "name": "group_reference",
                "peer": "scikit-learn's average precision of the three maps alone",
                "peer_s": round(peer_s, 1),
                "ours_s": round(cost.seconds, 1),
                "ratio": round(peer_s / cost.seconds, 2),
                "sessions": options.sessions,
                "cpu_s_a_session": round(cost.cpu_seconds / options.sessions, 2),
                "peak_gib": round(cost.peak_bytes / 2**30, 2),
                "processes": cores,
            }
        )
    )


if __name__ == "__main__":
    main()
