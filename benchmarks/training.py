"""Does training help? Encoders trained on 20 phantom controls against the same encoders untrained, on phantom patients.

The score is the *pooled* paradigm's, and nothing else of the program: one One-Class SVM (nu 0.03, gamma
"scale") is fitted to the latents of 10,000 patches of the training controls, and a patient's voxel scores minus
the logarithm of its kernel sum. Average precision in the brain mask, mean over the patients:

- ``raw``: the One-Class SVM sees the latents as they are, each feature as BatchNorm left it;
- ``standardised``: as `ocsvm.fit_pooled` does it, each feature by its median and 5-95 % range. By the MAD a feature of a trained
  encoder that hardly ever leaves its median would have a huge variance, set gamma, and hide the others;
- ``..._bright``: the same with voxels that are not brighter on FLAIR than white matter ranked last, for the latent
  space does not know that lesions are bright.

``flair_z`` is the smoothed FLAIR z-score alone: no network. Seeds change the weights at the start, the
batches and the One-Class SVM's sample; a trained encoder and its untrained twin share all of them.

Training is the train level's own, with its default settings. The first run makes the phantoms and
preprocesses them into ``build/training`` and ``build/detection`` (a quarter of an hour); ``level_s`` is
then the time of the whole level on all cores. One JSON line.

``--speed`` prints steps a second on batches that are there already, and ``ratio``, how many times the CPU's.

    python benchmarks/training.py [--speed] [--seeds 5] [--device cuda] [--option=value of the train level ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

import numpy as np
import torch
from detection import CACHE
from joblib import cpu_count
from machine import device_option, machine, seconds
from scans import Case, preprocess, read_cases

from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.core.evaluation.ranking import Ranking
from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder, build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_dense, embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.network.plan import Plan
from bids_wmh_uad.core.network.training import Trainer
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.svm.estimator import OneClassSVM
from bids_wmh_uad.core.svm.paradigms import POOLED_TOLERANCE, fit_pooled
from bids_wmh_uad.imaging.controls import open_control
from bids_wmh_uad.models import load_model
from bids_wmh_uad.phantom.dataset import main as write_phantoms
from bids_wmh_uad.train.launch import Launch, Meeting
from bids_wmh_uad.train.learning import learn

ROOT = Path(__file__).resolve().parents[1] / "build" / "training"
CONTROLS = 20
SAMPLES = 10_000
NU = 0.03
BATCH, STEPS = 256, 100
TINY = 1e-30
PHANTOM = ["--n-subjects", "0", "--seed", "2024", "--no-head", "--slice-thickness", "3", "4"]


def prepared_controls() -> tuple[dict[str, Path], float | None]:
    """Find the prepared controls by participant; without them, run the whole level once, and time it."""
    dataset, took = ROOT / "controls", None
    if not dataset.exists():
        write_phantoms([str(dataset), "--n-controls", str(CONTROLS), *PHANTOM])

    def found() -> dict[str, Path]:
        paths = (ROOT / "out" / "work").glob("*/*/prepare/control")
        return {path.parents[1].name.removesuffix("_wf"): path for path in paths}

    if len(found()) < CONTROLS:
        command = [
            sys.executable,
            "-m",
            "bids_wmh_uad",
            str(dataset),
            str(ROOT / "out"),
            "train",
            "-w",
            str(ROOT / "out" / "work"),
        ]
        command += ["--output-model", str(ROOT / "model"), "--nprocs", str(cpu_count()), "--resume"]
        start = perf_counter()
        subprocess.run(command, check=True)
        took = perf_counter() - start
    return found(), took


def patients() -> list[Case]:
    """Phantoms with lesions: those of `detection`."""
    phantoms = CACHE / "phantom"
    if not phantoms.exists():
        write_phantoms([str(phantoms), "--n-subjects", "3", "--n-controls", "3", "--seed", "77", "--no-head"])
    preprocess(phantoms, CACHE / "phantom-out")
    cases = read_cases(CACHE / "phantom-out", phantoms / "derivatives" / "truth", "phantom")
    return [case for case in cases if case.kind == "phantom"]


def train(
    controls: dict[str, Path], seed: int, options: list[str], device: str
) -> tuple[SiameseAutoencoder, float, Any]:
    """Train as the level does; the model, the seconds, and what it says of itself."""
    with tempfile.TemporaryDirectory() as out:
        argv = ["/none", out, "train", "--output-model", f"{out}/model", "--random-seed", str(seed)]
        start = perf_counter()
        learn(controls, parse_args([*argv, *options]), Meeting(Launch()), torch.device(device))
        took = perf_counter() - start
        model, description = load_model(f"{out}/model")
    return model, took, description["training"]


def evaluate(
    model: SiameseAutoencoder, controls: dict[str, Path], cases: list[Case], seed: int
) -> dict[str, float]:
    """Mean average precision over the patients, by score."""
    rng = np.random.default_rng(seed)
    drawn = []
    for label in sorted(controls):
        subject = open_control(controls[label])
        rows = rng.choice(np.flatnonzero(subject.mask), SAMPLES // len(controls), replace=False)
        where = np.stack(np.unravel_index(rows, subject.mask.shape), axis=1)
        drawn.append(embed_patches(model, extract_patches(subject.image, where)))
    sample = np.concatenate(drawn)
    raw = OneClassSVM(nu=NU, gamma="scale", tol=POOLED_TOLERANCE).fit(sample)
    scores: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "raw": lambda latents: np.log(np.maximum(raw.score_samples(latents), TINY)),
        "standardised": fit_pooled(sample, nu=NU, gamma="scale").log_score_samples,
    }
    found: dict[str, list[float]] = {}
    for case in cases:
        scan = case.scan  # patches are told apart where they are cut, on the working grid
        latents = embed_dense(model, scan.network_input(), scan.mask)
        dark = scan.flair_z[scan.mask] <= 0
        inside, lesion = (case.grid.forward(part, order=0)[scan.mask] for part in (case.inside, case.lesion))
        for name, log_score in scores.items():
            surprise = -log_score(latents).astype(np.float32)
            gated = np.where(dark, surprise.min() - 1, surprise)
            for score, kind in ((surprise, name), (gated, f"{name}_bright")):
                ranking = Ranking.of(score[inside], lesion[inside])
                found.setdefault(kind, []).append(ranking.average_precision())
    return {name: mean(precisions) for name, precisions in found.items()}


def flair_z(case: Case) -> float:
    """Average precision without any network."""
    tissue = case.tissue
    score = smooth_inside(tissue.flair_z, tissue.mask, case.zooms, DetectionParameters.sigma_mm)
    return Ranking.of(score[case.inside], case.lesion[case.inside]).average_precision()


def speed(device: str) -> dict[str, float]:
    """Steps of Adam a second on batches that are there already, by device and precision."""
    rng = np.random.default_rng(0)
    pair = rng.random((BATCH, 2, 15, 15), np.float32), rng.random((BATCH, 2, 15, 15), np.float32)
    kinds = [("cpu", None), *([(device, None), (device, torch.bfloat16)] if device != "cpu" else [])]
    rates: dict[str, list[float]] = {}
    for _ in range(3):
        for where, half in kinds:
            model = build_autoencoder(0).to(where)
            Trainer(model, Plan(epochs=1, steps=20), lambda _: pair, None, half).run()
            trainer = Trainer(model, Plan(epochs=1, steps=STEPS), lambda _: pair, None, half)
            rate = STEPS / seconds(trainer.run)
            rates.setdefault(f"{where.partition(':')[0]}_{'bfloat16' if half else 'float32'}", []).append(
                rate
            )
    return {name: round(median(found), 1) for name, found in rates.items()}


def summary(values: list[float]) -> dict[str, Any]:
    """Mean and spread over the seeds."""
    spread = round(stdev(values), 4) if len(values) > 1 else None
    return {"mean": round(mean(values), 4), "sd": spread, "seeds": [round(value, 4) for value in values]}


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speed", action="store_true", help="only steps a second, on batches of noise")
    device_option(parser)
    known, options = parser.parse_known_args()
    if known.speed:
        rates = speed(known.device)
        ratio = round(max(rates.values()) / rates["cpu_float32"], 1)
        found = {"batch": BATCH, "steps_a_second": rates, "ratio": ratio, "machine": machine()}
        print(json.dumps({"name": "training", "peer": "the CPU, all threads", **found}))
        return
    encoder = parse_args(["/a", "/b", "train", "--output-model", "/c", *options]).training.encoder
    controls, level_s = prepared_controls()
    cases = patients()
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {"trained": [], "untrained": []}
    times, said = [], []
    for seed in range(known.seeds):
        model, took, description = train(controls, seed, options, known.device)
        untrained = build_autoencoder(seed, encoder=encoder).eval()
        times.append(took)
        said.append(description["held_out_losses"])
        for kind, network in (("trained", model), ("untrained", untrained)):
            rows[kind].append(evaluate(network, controls, cases, seed))
        sys.stderr.write(f"seed {seed}: {took:.0f} s, {rows['trained'][-1]}, {rows['untrained'][-1]}\n")
    scores = list(rows["trained"][0])
    differences = {
        name: [one[name] - two[name] for one, two in zip(rows["trained"], rows["untrained"], strict=True)]
        for name in scores
    }
    result = {
        "name": "training",
        "controls": len(controls),
        "patients": {case.name: round(case.volume_ml, 1) for case in cases},
        "options": options,
        "device": known.device,
        **{
            kind: {name: summary([row[name] for row in found]) for name in scores}
            for kind, found in rows.items()
        },
        "difference": {name: summary(values) for name, values in differences.items()},
        "flair_z": round(mean(flair_z(case) for case in cases), 4),
        "training_s": round(mean(times), 1),
        "level_s": level_s and round(level_s, 1),
        "held_out": said[0],
    }
    print(json.dumps({**result, "machine": machine()}))


if __name__ == "__main__":
    main()
