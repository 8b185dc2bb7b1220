"""What each term of the default is worth: the same detector with one of them removed, by load.

One JSON line, and with ``--table`` a readable table first: the change of average precision, Dice, lesion F1 (of the
label-free mask) and false volume (mL) when a term is removed, on means of the real scans, of each band of imprinted load, of phantoms and
of scans without a lesion (`detection.py` says which scans these are). Terms of brightness are removed from ``brightness``, which
needs no network; those of the latent score, and the network as a whole, from ``directed``, over ``--seeds`` seeds; those of the mask from ``brightness``, too. A term whose
removal costs less than 0.005 everywhere has not earned its place.

``--numbers`` prints instead how many numbers the default's map and mask depend on that somebody set by hand, and which.

    python benchmarks/ablation.py --table
    python benchmarks/ablation.py --table --terms rim grey --cases imprinted
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from detection import NEVER, Detection, collect, group_of, measure, program_map
from joblib import Parallel, cpu_count, delayed
from scans import Case

from bids_wmh_uad.core.image import template
from bids_wmh_uad.core.lesion import candidates, decision, landmarks, segmentation
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.network import patches
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score import expected
from bids_wmh_uad.models import load_decision

WHOLE_BRAIN = 500
"""Voxels: what is left out when usual FLAIR is learnt again is then all there is, and the first pass stands."""
BRIGHTNESS: dict[str, dict[str, float]] = {
    "rim": {"rim_weight": 1.0},
    "grey": {"grey_weight": 1.0},
    "local departure": {"local_limit": 0.0},
    "second pass": {"first_margin": WHOLE_BRAIN},
    "noise": {"noise": NEVER},
    "40 bins (10)": {"t1w_bins": 10},
}
"""Terms of the brightness, and the parameters that remove each."""
LATENT: dict[str, dict[str, Any]] = {
    "network": {"score": "brightness"},
    "trim": {"trim": 0.0},
    "several One-Class SVMs": {"n_models": 1},
    "floor": {"floor": 0.0},
    "latent factor": {"floor": NEVER},
}
"""Terms of the latent score."""
MASK: dict[str, dict[str, float]] = {
    "edge": {"edge": 0.0},
    "decision": {"accept": 0.0},
    "share of lesions": {"prior_candidates": NEVER},
    "smallest lesion": {"min_lesion_volume": 0.0},
}
"""Terms of the mask."""
TERMS = {**BRIGHTNESS, **LATENT, **MASK}
KEYS = ("ap", "dice", "lesion_f1", "false_ml")


MODULES: tuple[ModuleType, ...] = (template, patches, expected, landmarks, candidates, decision, segmentation)
"""Where numbers stand that are no `DetectionParameters`."""
OF_OTHERS = {
    "other rules": ("gm_kappa", "gm_quantile", "quantile"),
    "what users are told": ("uncovered_percent", "high_load_percent", "unstable_ratio", "INTERVAL"),
    "names of regions": ("VENTRICLE_RIM_MM", "CORTEX_PRIOR", "SMALLEST_CORTEX_MM3"),
    "other steps": ("TRAINING_LEVEL", "CHECK_LEVEL", "ATLAS_LEVEL", "OUTLINE_LEVEL"),
    "arithmetic": (
        "NOTHING",
        "LARGEST_WEIGHT",
        "EM_STEPS",
        "EM_TOLERANCE",
        "RIM_VOXELS",
        "BACKGROUND",
        "MAD_TO_SD",
    ),
}
"""Numbers that the default's map and mask do not depend on, by what does."""


def hand_set() -> dict[str, float]:
    """The numbers that the default's map and mask depend on, by name."""
    others = {name for names in OF_OTHERS.values() for name in names}
    known = asdict(DetectionParameters())
    for module in MODULES:
        known |= {name: value for name, value in vars(module).items() if name.isupper()}
    return {
        name: value for name, value in known.items() if name not in others and type(value) in (int, float)
    }


def detect(case: Case, params: DetectionParameters, seed: int) -> Detection:
    """The program's mask and map with these parameters, remembered until the code, the weights or the scan change."""
    own = load_decision("default") if params.uses_network else LesionDecision()
    anomaly, evidence = program_map(case, params, seed)
    return Detection(anomaly, params, own, evidence)


def run(case: Case, term: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Change of each measure when a term is removed from its detector: mean over seeds."""
    torch.set_num_threads(1)
    whole = DetectionParameters(score="directed" if term in LATENT else "brightness")
    changes = []
    for seed in seeds if term in LATENT else seeds[:1]:
        before, after = (
            measure(case, detect(case, params, seed)) for params in (whole, replace(whole, **TERMS[term]))
        )
        changes.append([after[key] - before[key] for key in KEYS])
    return {
        "group": group_of(case),
        "term": term,
        **dict(zip(KEYS, np.mean(changes, axis=0).tolist(), strict=True)),
    }


def aggregate(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean change by term and group of scans."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for term in dict.fromkeys(row["term"] for row in rows):
        for group in dict.fromkeys(row["group"] for row in rows):
            own = [row for row in rows if (row["term"], row["group"]) == (term, group)]
            means = {key: round(float(np.mean([row[key] for row in own])), 4) for key in KEYS}
            table.setdefault(term, {})[group] = means
    return table


def show(table: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the changes; of scans without a lesion, the false volume alone."""
    groups = list(next(iter(table.values())))
    print("| without | " + " | ".join(groups) + " |\n|---|" + "---|" * len(groups))
    for term, row in table.items():
        cells = [
            f"{values['false_ml']:+.2f} mL"
            if group == "control"
            else f"{values['ap']:+.3f}, {values['dice']:+.3f}, {values['lesion_f1']:+.3f}, {values['false_ml']:+.2f} mL"
            for group, values in row.items()
        ]
        print(f"| {term} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--terms", nargs="+", choices=TERMS, default=list(TERMS))
    parser.add_argument("--cases", default="", help="only scans whose name or kind contains this")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--per-band", type=int, default=4, help="imprinted scans in each band of load")
    parser.add_argument("--table", action="store_true", help="print a table, too")
    parser.add_argument(
        "--numbers", action="store_true", help="print the default's hand-set numbers, and stop"
    )
    options = parser.parse_args()
    if options.numbers:
        numbers = hand_set()
        print(json.dumps({"name": "numbers", "count": len(numbers), "numbers": numbers}))
        return
    cases = [case for case in collect(options.per_band, None) if options.cases in f"{case.name} {case.kind}"]
    work = [(case, term) for case in cases for term in options.terms]
    rows = Parallel(n_jobs=cpu_count())(delayed(run)(case, term, range(options.seeds)) for case, term in work)
    table = aggregate(rows)
    if options.table:
        show(table)
    print(json.dumps({"name": "ablation", "seeds": options.seeds, "changes": table}))


if __name__ == "__main__":
    main()
