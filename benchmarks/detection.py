"""Named detectors on real patients, imprinted lesions and phantoms, with the plain FLAIR z-score beside them.

One JSON line, and with ``--table`` a readable table first. For every scan and detector: average precision
(AP), AU ROC, best Dice, and Dice and lesion F1 at the label-free threshold (``tail``), means over the
seeds; the worst seed's AP as well. Then means by load band and kind, and the false-positive volume on
scans without any lesion. Two detectors use no network and are always there:

- ``flair_z``: robust z of FLAIR, Gaussian sigma 0.7 voxels;
- ``excess_context``: the square root of (FLAIR above its grey-matter 90th percentile, sigma 0.7) x (the
  same at sigma 3).

The others: ``directed`` (the program's default), ``directed_random`` (the same with weights that nobody
trained: training must help), ``faithful`` (the paper's).

The first run preprocesses the scans (about ten minutes on two cores) into ``build/detection``; later
ones take a few minutes, or less with ``--detectors`` and ``--cases``. Real scans come from
``../shared/data``; without them only the phantoms are there. They are development data: a figure tuned
on them says little about other patients.

    python benchmarks/detection.py --table
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scans import BANDS_ML, Case, imprinted_cases, preprocess, read_cases
from scipy import ndimage

from bids_wmh_uad.core.autoencoder import build_autoencoder
from bids_wmh_uad.core.intensity import smooth_flair_z
from bids_wmh_uad.core.lesions import label_lesions, total_volume_ml
from bids_wmh_uad.core.metrics import dice, lesion_detection
from bids_wmh_uad.core.ranking import Ranking
from bids_wmh_uad.core.scoring import ScoreParams, anomaly_map
from bids_wmh_uad.core.threshold import operating_point
from bids_wmh_uad.models import load_model
from bids_wmh_uad.phantom.dataset import main as write_phantoms

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path(__file__).resolve().parents[1] / "build" / "detection"
MIN_LESION_MM3 = 5.0
HOSTS = ("sub-P18_ses-T1",)
"""Development patients with hardly any lesion of their own."""
Map = NDArray[np.float32]


def flair_z(case: Case, _seed: int) -> Map:
    """FLAIR alone."""
    return np.maximum(smooth_flair_z(case.scan.flair_z, case.scan.mask), 0)


def excess_context(case: Case, _seed: int) -> Map:
    """Bright here and around."""
    scan = case.scan
    level = np.percentile(scan.flair_z[scan.grey_matter & scan.mask], 90)
    excess = np.maximum(scan.flair_z - level, 0) * scan.mask
    near, around = (ndimage.gaussian_filter(excess, sigma) for sigma in (0.7, 3.0))
    return np.asarray(np.sqrt(near * around) * scan.mask, dtype=np.float32)


def latent(case: Case, seed: int, score: str, random_weights: bool = False) -> Map:
    """One of the program's own scores."""
    model = build_autoencoder(seed).eval() if random_weights else load_model("default")[0]
    params = ScoreParams(score=score)
    return anomaly_map(model, case.scan, params, np.random.default_rng(seed)).scores


DETECTORS: dict[str, Callable[[Case, int], Map]] = {
    "flair_z": flair_z,
    "excess_context": excess_context,
    "directed": partial(latent, score="directed"),
    "directed_random": partial(latent, score="directed", random_weights=True),
    "faithful": partial(latent, score="faithful"),
}
SEEDLESS = ("flair_z", "excess_context")


def measure(case: Case, score: Map) -> dict[str, float]:
    """One map against the truth."""
    inside = case.inside
    rule = "tail" if (score[inside] >= 0).all() else "gm"
    point = operating_point(rule, score, case.scan.mask, case.scan.grey_matter)
    found = label_lesions(point.apply(score, case.scan.mask), case.affine, MIN_LESION_MM3) > 0
    found &= inside
    lesion = case.lesion & inside
    ranking = Ranking.of(score[inside], lesion[inside])
    return {
        "ap": ranking.average_precision(),
        "auroc": ranking.auroc(),
        "best_dice": ranking.best_dice()[0],
        "dice": dice(found, lesion),
        "lesion_f1": lesion_detection(found, lesion).f1,
        "false_ml": total_volume_ml(found & ~lesion, case.affine),
    }


def run(case: Case, name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """One detector on one scan: means over seeds."""
    torch.set_num_threads(1)
    used = seeds[:1] if name in SEEDLESS else seeds
    rows = [measure(case, DETECTORS[name](case, seed)) for seed in used]
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    worst = min(row["ap"] for row in rows)
    return {
        "case": case.name,
        "kind": case.kind,
        "ml": case.volume_ml,
        "detector": name,
        **means,
        "worst_ap": worst,
    }


def collect(per_band: int) -> list[Case]:
    """All scans there are."""
    phantoms = CACHE / "phantom"
    if not phantoms.exists():
        write_phantoms([str(phantoms), "--n-subjects", "3", "--n-controls", "3", "--seed", "77", "--no-head"])
    preprocess(phantoms, CACHE / "phantom-out")
    cases = list(read_cases(CACHE / "phantom-out", phantoms / "derivatives" / "truth", "phantom"))
    real = DATA / "ms-mni"
    if real.is_dir():
        preprocess(real, CACHE / "ms-mni")
        patients = list(read_cases(CACHE / "ms-mni", real / "derivatives" / "manual", "real"))
        hosts = [case for case in patients if case.name in HOSTS]
        cases += patients + list(imprinted_cases(hosts, DATA / "ms-masks-mni", per_band, seed=0))
    return cases


def aggregate(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by group of scans and detector."""
    groups: dict[str, Callable[[dict[str, Any]], bool]] = {
        kind: lambda row, kind=kind: row["kind"] == kind for kind in ("real", "phantom", "control")
    }
    for low, high in BANDS_ML:
        groups[f"imprinted {low:g}-{high:g} mL"] = lambda row, low=low, high=high: (
            row["kind"] == "imprinted" and low <= row["ml"] < high
        )
    table: dict[str, dict[str, dict[str, float]]] = {}
    for group, belongs in groups.items():
        for name in DETECTORS:
            own = [row for row in rows if belongs(row) and row["detector"] == name]
            if own:
                keys = (
                    ("false_ml",)
                    if group == "control"
                    else ("ap", "worst_ap", "best_dice", "dice", "lesion_f1", "false_ml")
                )
                means = {key: round(float(np.mean([row[key] for row in own])), 4) for key in keys}
                table.setdefault(group, {})[name] = {**means, "scans": len(own)}
    return table


def show(rows: Sequence[dict[str, Any]], groups: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print AP (label-free Dice) by scan, and the means by group."""
    names = [name for name in DETECTORS if any(row["detector"] == name for row in rows)]
    print("| scan | mL | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
    for case in dict.fromkeys(row["case"] for row in rows):
        own = {row["detector"]: row for row in rows if row["case"] == case}
        cells = [f"{own[name]['ap']:.3f} ({own[name]['dice']:.2f})" for name in names]
        print(f"| {case} | {next(iter(own.values()))['ml']:.1f} | " + " | ".join(cells) + " |")
    for group, table in groups.items():
        key = "false_ml" if group == "control" else "ap"
        cells = [f"{table[name][key]:.3f}" for name in names if name in table]
        print(f"| **{group}**, mean {key} | | " + " | ".join(cells) + " |")


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--cases", default="", help="only scans whose name or kind contains this")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-band", type=int, default=3, help="imprinted scans in each band of load")
    parser.add_argument("--table", action="store_true", help="print a table, too")
    options = parser.parse_args()
    names = list(dict.fromkeys([*SEEDLESS, *options.detectors]))
    cases = [case for case in collect(options.per_band) if options.cases in f"{case.name} {case.kind}"]
    work = [(case, name) for case in cases for name in names]
    seeds = range(options.seeds)
    rows = Parallel(n_jobs=os.cpu_count())(delayed(run)(case, name, seeds) for case, name in work)
    groups = aggregate(rows)
    if options.table:
        show(rows, groups)
    print(json.dumps({"name": "detection", "seeds": options.seeds, "groups": groups, "scans": rows}))


if __name__ == "__main__":
    main()
