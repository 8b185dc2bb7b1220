"""One One-Class SVM of many controls' latents: growth of time and memory, and the same detections.

One JSON line, in about two minutes on two cores. Latents are drawn from a mixture of 40 tissues
(16-d), test latents from the same and, one in ten, from shifted ones. Each size is fitted in a
process of its own: `fit_pooled` (exact kernel), scikit-learn's OneClassSVM up to the size that still
finishes in half a minute, and SGDOneClassSVM on 300 Nystroem features. `curve` holds seconds,
peak memory in GiB (data and imports included), support vectors and average precision by size and
method. `ratio` compares exact peer and ours at the largest size that the peer takes; medians of
`ALTERNATIONS` there. `agreement` is the largest difference of average precision from the peer's.

    python benchmarks/pooled.py
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDOneClassSVM
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from bids_wmh_uad.core.image.robust import MAD_TO_SD

SIZES = (3_000, 10_000, 30_000, 100_000)
PEER_LIMIT = 30_000
ALTERNATIONS = 5
NU, WIDTH = 0.03, 16


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training latents, test latents and which of these are unusual."""
    fixed = np.random.default_rng(0)
    centres = 2 * fixed.standard_normal((40, WIDTH))
    spread = 0.85 ** np.arange(WIDTH)
    rng = np.random.default_rng(seed)

    def some(number: int) -> np.ndarray:
        return centres[rng.integers(40, size=number)] + rng.standard_normal((number, WIDTH)) * spread

    train, test = some(count), some(5000)
    odd = rng.random(5000) < 0.1
    test[odd] += 1.2 * rng.standard_normal((int(odd.sum()), WIDTH))
    return train.astype(np.float32), test.astype(np.float32), odd


def fit(method: str, count: int, seed: int) -> dict[str, float]:
    """Fit one model and measure it."""
    from bids_wmh_uad.core.svm.paradigms import fit_pooled

    train, test, odd = draw(count, seed)
    gamma = 1.0 / WIDTH
    centre, scale = np.median(train, 0), MAD_TO_SD * np.median(np.abs(train - np.median(train, 0)), 0)
    start = perf_counter()
    if method == "ours":
        model = fit_pooled(train, nu=NU, gamma=gamma)
        vectors = len(model.support_vectors)
    else:
        train, test = ((part - centre) / scale for part in (train, test))
        if method == "libsvm":
            model = OneClassSVM(nu=NU, gamma=gamma)
        else:
            nystroem = Nystroem(gamma=gamma, n_components=300, random_state=0)
            model = make_pipeline(nystroem, SGDOneClassSVM(nu=NU, random_state=0))
        model.fit(train)
        vectors = len(model.support_) if method == "libsvm" else 300
    seconds = perf_counter() - start
    return {
        "seconds": round(seconds, 3),
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "vectors": vectors,
        "ap": round(float(average_precision_score(odd, -model.decision_function(test))), 4),
    }


def apart(method: str, count: int, seed: int = 1) -> dict[str, float]:
    """Run `fit` in a process of its own."""
    command = [sys.executable, __file__, method, str(count), str(seed)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found


def main() -> None:
    """Print the JSON line."""
    if len(sys.argv) > 1:
        print(json.dumps(fit(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
        return
    curve = {
        str(count): {
            method: apart(method, count)
            for method in ("ours", "libsvm", "nystroem_sgd")
            if method != "libsvm" or count <= PEER_LIMIT
        }
        for count in SIZES
    }
    pairs = [
        (apart("libsvm", PEER_LIMIT, seed), apart("ours", PEER_LIMIT, seed)) for seed in range(ALTERNATIONS)
    ]
    print(
        json.dumps(
            {
                "name": "pooled",
                "peer": f"scikit-learn OneClassSVM, {PEER_LIMIT} latents",
                "peer_s": median(peer["seconds"] for peer, _ in pairs),
                "ours_s": median(ours["seconds"] for _, ours in pairs),
                "ratio": round(median(peer["seconds"] / ours["seconds"] for peer, ours in pairs), 2),
                "agreement": round(max(abs(peer["ap"] - ours["ap"]) for peer, ours in pairs), 5),
                "curve": curve,
            }
        )
    )


if __name__ == "__main__":
    main()
