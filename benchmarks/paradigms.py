"""Whose patches say what is normal: the patient's own, all controls' pooled, or the controls' at the same place.

One JSON line. Phantom controls and phantom patients, disjoint. For each seed an encoder is trained on the
controls, the pooled and the voxel-wise One-Class SVMs are fitted to them as the train level does, and
every patient is scored under every paradigm with both scores. `ap`: mean average precision in the
brain, over patients; with its standard deviation over seeds. FLAIR-z stands beside them. The
`random` encoder is one that nobody trained. Times of the fits, and the size of their files, are
of the first seed.

The first run makes and preprocesses the phantoms into ``build/paradigms`` (half an hour on two cores);
later ones take a few minutes.

    python benchmarks/paradigms.py --table
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scans import Case, preprocess, read_cases

from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.config import Method, Performance, RunConfig, Running, Training
from bids_wmh_uad.core.autoencoder import build_autoencoder
from bids_wmh_uad.core.intensity import smooth_flair_z
from bids_wmh_uad.core.ranking import average_precision
from bids_wmh_uad.core.scoring import SCORES, ScoreParams, anomaly_map
from bids_wmh_uad.models import load_model, load_one_class, save_model
from bids_wmh_uad.phantom import PhantomSpec, write_dataset
from bids_wmh_uad.workflows import engine
from bids_wmh_uad.workflows.normality import fit_normality, model_numbers
from bids_wmh_uad.workflows.results import read_transform, result_path
from bids_wmh_uad.workflows.train import prepare_controls, train_model

CACHE = Path(__file__).resolve().parents[1] / "build" / "paradigms"
CONTROLS = 20
LESIONS_ML = {90: 0.8, 92: 8.0, 94: 50.0}
COARSE: dict[str, Any] = {"head": False, "flair_zooms": (1.2, 1.2, 4.0), "t1w_zooms": (1.6, 1.6, 1.6)}


def config_for(directory: Path, seed: int, epochs: int) -> RunConfig:
    """Settings of the train level."""
    return RunConfig(
        CACHE / "bids", CACHE / "train", "train",
        method=Method(random_seed=seed), running=Running(work_dir=CACHE / "work"),
        performance=Performance(nprocs=os.cpu_count() or 1),
        training=Training(output_model=directory, epochs=epochs), run_uuid=directory.name,
    )  # fmt: skip


def collect() -> tuple[list[Path], list[tuple[Case, NDArray[np.float64]]]]:
    """Prepared controls, and patients with the way from their voxels to the template."""
    bids = CACHE / "bids"
    if not bids.exists():
        specs = {
            f"sub-{k:02d}": PhantomSpec(seed=500 + k, lesion_volume_ml=0, **COARSE) for k in range(CONTROLS)
        }
        write_dataset(bids, specs)
        specs = {
            f"sub-{label}": PhantomSpec(seed=810 + label, lesion_volume_ml=ml, **COARSE)
            for label, ml in LESIONS_ML.items()
        }
        write_dataset(CACHE / "patients", specs)
    config = config_for(CACHE / "prepare", 0, 1)
    for directory in (config.output_dir, config.log_dir, config.running.work_dir):
        directory.mkdir(parents=True, exist_ok=True)
    engine.set_environment(config)
    controls = list(prepare_controls(find_sessions(bids, config.selection)[0], config).values())
    out = CACHE / "patients-out"
    preprocess(CACHE / "patients", out)
    patients = []
    for case in read_cases(out, CACHE / "patients" / "derivatives" / "truth", "phantom"):
        (summary,) = (out / case.name).glob("anat/*_desc-wmh_summary.json")
        to_template = read_transform(result_path(summary, "flair_to_template"))
        patients.append((case, to_template @ case.affine))
    return controls, patients


def models(controls: Sequence[Path], seed: int, options: argparse.Namespace) -> dict[str, Path]:
    """Model directories of a trained and of a random encoder, with their One-Class SVMs."""
    made = {}
    for encoder in ("trained", "random"):
        directory = CACHE / f"model-{encoder}-{seed}"
        config = config_for(directory, seed, options.epochs)
        if encoder == "random":
            save_model(build_autoencoder(seed), directory, {"name": "random"})
        elif not (directory / "model.json").is_file():
            train_model(controls, config, lambda _: None)
        start = perf_counter()
        fit_normality(controls, config)
        made[encoder] = directory
        print(json.dumps({"fit_s": round(perf_counter() - start, 1), "model": directory.name}), flush=True)
    return made


def evaluate(
    directory: Path, patients: Sequence[tuple[Case, NDArray[np.float64]]], seed: int
) -> dict[str, list[float]]:
    """AP of every patient, by score and paradigm."""
    found: dict[str, list[float]] = {}
    encoder, _ = load_model(directory)
    for paradigm in ("patient", "pooled", "voxel"):
        one_class = None if paradigm == "patient" else load_one_class(directory, paradigm)
        for case, to_template in patients:
            scan = replace(case.scan, voxels=model_numbers(one_class, case.scan.mask, to_template))
            for score in SCORES:
                rng = np.random.default_rng(seed)
                result = anomaly_map(encoder, scan, ScoreParams(score=score), rng, one_class=one_class).scores
                ap = average_precision(result[case.inside], case.lesion[case.inside])
                found.setdefault(f"{score}/{paradigm}", []).append(float(ap))
    return found


def flair_z(case: Case) -> float:
    """AP of FLAIR alone."""
    score = smooth_flair_z(case.scan.flair_z, case.scan.mask)[case.inside]
    return float(average_precision(score, case.lesion[case.inside]))


def spread(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of (seeds, patients) APs: mean, standard deviation over seeds of the patients' mean, mean of each patient."""
    table = np.asarray(values)
    means = table.mean(axis=1)
    return {
        "ap": round(float(means.mean()), 4),
        "sd": round(float(means.std(ddof=1)) if len(means) > 1 else 0.0, 4),
        "patients": [round(float(value), 3) for value in table.mean(axis=0)],
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=Training.epochs)
    parser.add_argument("--table", action="store_true", help="print a table, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    controls, patients = collect()
    found: dict[str, list[list[float]]] = {}
    sizes: dict[str, int] = {}
    for seed in range(options.seeds):
        for encoder, directory in models(controls, seed, options).items():
            sizes = sizes or {path.name: path.stat().st_size for path in directory.glob("*.safetensors")}
            for name, values in evaluate(directory, patients, seed).items():
                found.setdefault(f"{encoder}/{name}", []).append(values)
    result = {"flair_z": spread([[flair_z(case) for case, _ in patients]])}
    result |= {name: spread(values) for name, values in found.items()}
    if options.table:
        print(
            "| | AP | sd over seeds | "
            + " | ".join(f"{case.volume_ml:.1f} mL" for case, _ in patients)
            + " |"
        )
        print("|---|---|---|" + "---|" * len(patients))
        for name, row in result.items():
            cells = [f"{value:.3f}" for value in (row["ap"], row["sd"], *row["patients"])]
            print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        json.dumps(
            {"name": "paradigms", "controls": len(controls), "seeds": options.seeds, **result, "bytes": sizes}
        )
    )


if __name__ == "__main__":
    main()
