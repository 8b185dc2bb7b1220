"""Whose patches say what is normal: the patient's own, all controls' pooled, or the controls' at the same place.

One JSON line. Controls and patients are the phantoms of `training.py`, which do not overlap. For each seed
an encoder is trained on the controls (and another one is not trained), the pooled and the voxel-wise
One-Class SVMs are fitted to them as the train level does, and every patient is scored under every paradigm
with both scores. ``ap``: average precision in the brain, mean over patients and seeds; ``sd``: standard
deviation over seeds of the mean over patients; ``cases``: mean over seeds for each patient. FLAIR-z stands
beside them. ``fit_s``, ``map_s`` (of one map of the directed score) and ``bytes`` are of the trained encoders;
times are processor seconds on one thread.

After the phantoms are there (see `training.py`), a seed takes a few minutes.

    python benchmarks/paradigms.py --table [--seeds 3] [--option=value of the train level ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from time import process_time
from typing import Any

import numpy as np
import torch
from detection import CACHE
from scans import Case
from training import flair_z, patients, prepared_controls, train

from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.config import PARADIGMS
from bids_wmh_uad.core.evaluation.threshold_free import average_precision
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.anomaly import anomaly_map
from bids_wmh_uad.core.svm.voxelwise import model_numbers
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.models import ONE_CLASS_FILES, load_model, load_one_class, save_model
from bids_wmh_uad.train.normality import fit_normality

COMPARED = ("directed", "faithful")
"""The default score and the paper's."""


def fit(controls: Sequence[Path], directory: Path, seed: int) -> float:
    """Processor seconds that the One-Class SVMs of the controls take."""
    argv = [
        "/none",
        str(directory.parent),
        "train",
        "--output-model",
        str(directory),
        "--random-seed",
        str(seed),
    ]
    config = parse_args([*argv, "-w", str(directory.parent)])
    start = process_time()
    fit_normality(controls, config)
    return process_time() - start


def score(
    directory: Path, cases: Sequence[Case], seed: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """AP of every patient, by score and paradigm; seconds of a directed map."""
    found: dict[str, list[float]] = {}
    seconds = {}
    encoder, _ = load_model(directory)
    for paradigm in PARADIGMS:
        one_class = None if paradigm == "patient" else load_one_class(directory, paradigm)
        for name in COMPARED:
            start = process_time()
            for case in cases:
                (summary,) = (CACHE / "phantom-out" / case.name).glob("anat/*_desc-wmh_summary.json")
                to_template = read_transform(result_path(summary, "flair_to_template")) @ case.grid.affine
                scan = case.scan
                scan = replace(scan, voxels=model_numbers(one_class, scan.mask, to_template))
                params, rng = DetectionParameters(score=name), np.random.default_rng(seed)
                result = case.own(anomaly_map(encoder, scan, params, rng, one_class=one_class)).scores
                ap = average_precision(result[case.inside], case.lesion[case.inside])
                found.setdefault(f"{name}/{paradigm}", []).append(float(ap))
            if name == "directed":
                seconds[paradigm] = (process_time() - start) / len(cases)
    return found, seconds


def spread(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of (seeds, patients) average precisions."""
    means = [mean(row) for row in rows]
    return {
        "ap": round(mean(means), 4),
        "sd": round(stdev(means), 4) if len(means) > 1 else None,
        "cases": [round(mean(column), 3) for column in zip(*rows, strict=True)],
    }


def show(result: dict[str, Any], cases: Sequence[Case]) -> None:
    """Print a readable table."""
    print("| | AP | sd over seeds | " + " | ".join(f"{case.volume_ml:.1f} mL" for case in cases) + " |")
    print("|---|---|---|" + "---|" * len(cases))
    for name, row in result.items():
        cells = [f"{row['ap']:.3f}", str(row["sd"]), *(f"{value:.3f}" for value in row["cases"])]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print a table, too")
    known, options = parser.parse_known_args()
    encoder_name = parse_args(["/a", "/b", "train", "--output-model", "/c", *options]).training.encoder
    controls, _ = prepared_controls()
    paths = [controls[label] for label in sorted(controls)]
    cases = patients()
    torch.set_num_threads(1)
    found: dict[str, list[list[float]]] = {}
    times: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for seed in range(known.seeds):
        for kind in ("untrained", "trained"):
            if kind == "trained":
                encoder, _, _ = train(controls, seed, options)
            else:
                encoder = build_autoencoder(seed, encoder=encoder_name).eval()
            with tempfile.TemporaryDirectory() as folder:
                directory = save_model(encoder, Path(folder) / "model", {})
                fit_s = fit(paths, directory, seed)
                rows, seconds = score(directory, cases, seed)
                if kind == "trained":
                    sizes = {
                        name: (directory / file).stat().st_size for name, file in ONE_CLASS_FILES.items()
                    }
                    for name, value in {**seconds, "fit": fit_s}.items():
                        times.setdefault(name, []).append(value)
            for name, row in rows.items():
                found.setdefault(f"{kind}/{name}", []).append(row)
            sys.stderr.write(f"seed {seed}, {kind}: fit {fit_s:.0f} s, {rows}\n")
    result = {"flair_z": spread([[flair_z(case) for case in cases]])}
    result |= {name: spread(rows) for name, rows in found.items()}
    if known.table:
        show(result, cases)
    about = {
        "name": "paradigms",
        "controls": len(paths),
        "seeds": known.seeds,
        "options": options,
        "fit_s": round(mean(times.pop("fit")), 1),
        "map_s": {name: round(mean(values), 1) for name, values in times.items()},
        "bytes": sizes,
    }
    print(json.dumps(about | result))


if __name__ == "__main__":
    main()
