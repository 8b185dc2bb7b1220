"""100,000 voxel-wise One-Class SVMs, fitted and applied, against a scikit-learn loop on all cores.

One JSON line, in about two minutes on two cores. Each model has n = 75 latents of 16
dimensions (as many controls) and scores one more; nu 0.03, gamma "scale". `ours_s` is
`fit_voxelwise`, from a memory-mapped file as a cohort's latents are, with one process a core, and
one pass of scores over all models. The peer fits and applies
scikit-learn's OneClassSVM in a joblib loop with one process a core; it takes most of a minute for
all models and is a loop of equal work, so each alternation times 2,000 of them and is scaled.
Both keep their processes from one alternation to the next.
Medians of the alternations; `ratio` is the median of their ratios.

Two kinds of latents: independent features (the figures without a prefix), and
`correlated_*`, where principal component k has 0.75^k of the first one's spread. `agreement`: largest
difference of decision values from libsvm at tolerance 1e-10, 200 models.

`floor_s`: kernel matrices alone, at this machine's best float32 matrix product (n^2 d
multiply-adds) and its base-2 exponential (n^2), both on all cores.

With ``--device cuda`` ours is fitted and applied there, and the floor is that of the GPU.

    python benchmarks/voxelwise.py [--device cuda]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from joblib import Parallel, delayed
from machine import device_option, kernel_seconds, machine
from numpy.typing import NDArray
from sklearn.svm import OneClassSVM

from bids_wmh_uad.core.svm.paradigms import Standardiser
from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM
from bids_wmh_uad.core.svm.voxelwise_fit import fit_voxelwise
from bids_wmh_uad.processes import die_with_parent, this_process

MODELS, SAMPLES, WIDTH = 100_000, 75, 16
NU = 0.03
TIMED = 2000
ALTERNATIONS = 5


def peer(train: NDArray[np.float64], test: NDArray[np.float64]) -> float:
    """One model."""
    return float(OneClassSVM(nu=NU, gamma="scale").fit(train).score_samples(test[None])[0])


def ours(
    latents: NDArray[np.float32], new: NDArray[np.float32], device: str
) -> tuple[VoxelwiseOneClassSVM, NDArray[np.float32]]:
    """All models of (n, V, d) latents."""
    mask = np.ones((len(new), 1, 1), dtype=bool)
    jobs = torch.get_num_threads() if device == "cpu" else 1
    model = fit_voxelwise(latents, mask, np.eye(4), nu=NU, n_jobs=jobs, device=device)
    rows, which = torch.from_numpy(new).to(device), torch.arange(len(new), device=device)
    return model, model.on(device).decision_function(rows, which).cpu().numpy()


def agreement(
    model: VoxelwiseOneClassSVM,
    latents: NDArray[np.float32],
    new: NDArray[np.float32],
    found: NDArray[np.float32],
) -> float:
    """Largest difference of decision values from libsvm's, at its tightest tolerance."""
    standardise = Standardiser(model.centre.double().numpy(), model.scale.double().numpy())
    worst = 0.0
    for k in range(0, MODELS, MODELS // 200):
        exact = OneClassSVM(nu=NU, gamma="scale", tol=1e-10).fit(standardise(latents[:, k]).astype(float))
        expected = exact.decision_function(standardise(new[k : k + 1]).astype(float))[0]
        worst = max(worst, abs(float(found[k]) - expected))
    return worst


def compare(mixing: NDArray[np.float32], folder: str, device: str) -> dict[str, float]:
    """Alternate peer and ours."""
    rng = np.random.default_rng(0)
    file = Path(folder) / "latents.npy"
    np.save(file, rng.standard_normal((SAMPLES, MODELS, WIDTH), dtype=np.float32) @ mixing)
    latents = np.load(file, mmap_mode="r")
    new = rng.standard_normal((MODELS, WIDTH), dtype=np.float32) @ mixing
    some = np.ascontiguousarray(latents[:, :TIMED].transpose(1, 0, 2), dtype=np.float64)
    # the processes that ours uses: others would replace them, and be replaced, at every turn
    jobs = Parallel(
        n_jobs=torch.get_num_threads(), initializer=die_with_parent, initargs=(this_process().pid,)
    )
    jobs(delayed(peer)(some[k], new[k]) for k in range(100))  # the processes start once
    ours(latents[:, : len(new) // 10], new[: len(new) // 10], device)
    times: dict[str, list[float]] = {"peer": [], "ours": []}
    model: VoxelwiseOneClassSVM | None
    for _ in range(ALTERNATIONS):
        start = perf_counter()
        jobs(delayed(peer)(some[k], new[k]) for k in range(TIMED))
        times["peer"].append((perf_counter() - start) * MODELS / TIMED)
        model = None  # the last one's memory is free again
        start = perf_counter()
        model, found = ours(latents, new, device)
        times["ours"].append(perf_counter() - start)
    return {
        "peer_s": round(median(times["peer"]), 1),
        "ours_s": round(median(times["ours"]), 2),
        "ratio": round(median(p / o for p, o in zip(times["peer"], times["ours"], strict=True)), 1),
        "agreement": agreement(model, latents, new, found),
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    device_option(parser)
    device = parser.parse_args().device
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))[0]
    with TemporaryDirectory() as folder:
        independent = compare(np.eye(WIDTH, dtype=np.float32), folder, device)
        correlated = compare(
            (0.75 ** np.arange(WIDTH)[:, None] * rotation).astype(np.float32), folder, device
        )
    floor = kernel_seconds(MODELS * SAMPLES**2, WIDTH, device)
    print(
        json.dumps(
            {
                "name": "voxelwise",
                "device": device,
                "peer": "scikit-learn OneClassSVM, joblib on all cores",
                **independent,
                **{f"correlated_{key}": value for key, value in correlated.items()},
                "floor_s": round(floor, 2),
                "times_floor": round(independent["ours_s"] / floor, 1),
                "models": MODELS,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    main()
