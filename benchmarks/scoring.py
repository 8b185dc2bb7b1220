"""Scoring 1.5 million voxels with one patient's One-Class SVM, against scikit-learn on all cores.

One JSON line, in about a minute on two cores. One model of 2,000 latents (16-d, nu 0.03) scores
1.5 million others: `KernelSum.decision_function` against `OneClassSVM.score_samples` of
scikit-learn, joblib with one thread a core over equal parts. Medians of the alternations; `ratio` is the
median of their ratios. `agreement`: largest difference of decision values from scikit-learn's model
fitted at tolerance 1e-10. `floor_s`: the matrix product and the base-2 exponentials at this machine's best
rates on all cores. `peak_gib`: largest resident memory of a process that scores a head of 256 x 256 x 180
voxels (4.4 million of them brain) from z-scores to map, and `head_s` its time. `scan`: wall and processor seconds of
scoring and of segmenting one session, on the FLAIR's own grid from z-scores to lesions, as the participant level does: of a real one with voxels of
1 mm where `detection.py` has preprocessed it, else of a phantom.

With ``--device cuda`` ours runs there, and so do the head and the scan; `memory_floor_s` is the latents' way to the GPU and the scores' way back.

    python benchmarks/scoring.py [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from machine import device_option, kernel_seconds, machine, seconds
from numpy.typing import NDArray
from sklearn.svm import OneClassSVM

from bids_wmh_uad.core.device import configure_torch
from bids_wmh_uad.core.svm.paradigms import Standardiser, fit_patient

VOXELS, SAMPLES, WIDTH, NU = 1_500_000, 2000, 16, 0.03
ALTERNATIONS = 5


def head(device: str) -> None:
    """Score one large head in this process; print its peak memory and time."""
    from bids_wmh_uad.core.parameters import DetectionParameters
    from bids_wmh_uad.core.score.anomaly import anomaly_map
    from bids_wmh_uad.core.score.scan import Scan
    from bids_wmh_uad.models import load_model

    shape = (256, 256, 180)
    rng = np.random.default_rng(0)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    mask = (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2) < 0.8
    scan = Scan(*(rng.standard_normal(shape, dtype=np.float32) for _ in range(2)), mask)
    model, _ = load_model()
    start = perf_counter()
    anomaly_map(model, scan, DetectionParameters(), rng, device=device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"peak_gib": round(peak, 2), "head_s": round(perf_counter() - start, 1)}))


def scan(device: str) -> None:
    """Score and segment one session in this process; print the seconds of each."""
    from detection import collect_phantoms, collect_real

    from bids_wmh_uad.core.lesion.segmentation import segment
    from bids_wmh_uad.core.parameters import DetectionParameters
    from bids_wmh_uad.core.score.anomaly import anomaly_map
    from bids_wmh_uad.models import load_decision, load_model

    case = (collect_real() or collect_phantoms({"timed": (1, 0, 80, None)}))[0]
    model, decision, params = load_model()[0], load_decision("default"), DetectionParameters()
    direction = np.array(decision.latent, dtype=np.float32)
    start = perf_counter(), process_time()
    rng = np.random.default_rng(0)
    found = anomaly_map(model, case.scan, params, rng, direction=direction, device=device)
    own = case.own(found)
    scored = perf_counter(), process_time()
    segment(
        own.scores, case.tissue, case.landmarks, case.affine,
        parameters=params, decision=decision, evidence=own.evidence,
    )  # fmt: skip
    segmented = perf_counter(), process_time()
    took = {
        name: [round(after - before, 1) for before, after in zip(*times, strict=True)]
        for name, times in (("score", (start, scored)), ("segment", (scored, segmented)))
    }
    print(json.dumps({"scan": {"name": case.name, "mm": np.round(case.zooms, 2).tolist(), **took}}))


def child(option: str, device: str) -> dict[str, Any]:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, option, "--device", device]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def memory_floor(latents: NDArray[np.float32], device: str) -> dict[str, float]:
    """The latents to a GPU, and as many numbers back."""
    if device == "cpu":
        return {}
    here = torch.from_numpy(latents)
    there = here.to(device)
    one = there[:, 0].contiguous()
    both = min(seconds(lambda: here.to(device)) + seconds(one.cpu) for _ in range(5))
    return {"memory_floor_s": round(both, 4)}


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    device_option(parser)
    parser.add_argument("--head", action="store_true", help="only this part, in this process")
    parser.add_argument("--scan", action="store_true", help="likewise")
    options = parser.parse_args()
    if options.head or options.scan:
        configure_torch()
        (head if options.head else scan)(options.device)
        return
    device = options.device
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((WIDTH, WIDTH))
    latents = (rng.standard_normal((VOXELS, WIDTH)) @ mixing).astype(np.float32)
    sample = latents[:SAMPLES]
    ours = fit_patient(sample[None], nu=NU, gamma="scale")
    standardised = Standardiser.fit(sample)(latents).astype(np.float64)
    peer = OneClassSVM(nu=NU, gamma=ours.gamma, tol=1e-10).fit(standardised[:SAMPLES])
    threads = torch.get_num_threads()
    parts = np.array_split(standardised, threads)
    jobs = Parallel(n_jobs=threads, prefer="threads")  # libsvm releases the lock: no copies of the data
    times: dict[str, list[float]] = {"peer": [], "ours": []}
    ours.decision_function(latents, device)  # a GPU's libraries start once
    for _ in range(ALTERNATIONS):
        start = perf_counter()
        expected = np.concatenate(jobs(delayed(peer.score_samples)(part) for part in parts))
        times["peer"].append(perf_counter() - start)
        start = perf_counter()
        found = ours.decision_function(latents, device)
        times["ours"].append(perf_counter() - start)
    floor = kernel_seconds(VOXELS * len(ours.support_vectors), WIDTH, device)
    ours_s = median(times["ours"])
    print(
        json.dumps(
            {
                "name": "scoring",
                "device": device,
                "peer": "scikit-learn score_samples, joblib threads on all cores",
                "peer_s": round(median(times["peer"]), 2),
                "ours_s": round(ours_s, 3),
                "ratio": round(median(p / o for p, o in zip(times["peer"], times["ours"], strict=True)), 1),
                "agreement": float(np.abs(found - (expected - peer.offset_)).max()),
                "floor_s": round(floor, 3),
                "times_floor": round(ours_s / floor, 1),
                **memory_floor(latents, device),
                "support_vectors": len(ours.support_vectors),
                "machine": machine(),
                **child("--head", device),
                **child("--scan", device),
            }
        )
    )


if __name__ == "__main__":
    main()
