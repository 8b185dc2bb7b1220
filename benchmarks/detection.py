"""Named detectors on real patients, imprinted lesions and phantoms, with the plain FLAIR z-score beside them.

Maps and masks are made and judged on the FLAIR's own grid, by the program's own steps: what users get.
One JSON line, and with ``--table`` a readable table first. For every scan and detector: average precision
(AP), AU ROC, best Dice, and Dice and lesion F1 at the label-free threshold (``tail``), means over the
seeds; the worst seed's AP as well. Then means by load band and kind, the false-positive volume on
scans without any lesion, and the reliability curve of the probability map. Two detectors use no network
and are always there:

- ``flair_z``: robust z of FLAIR, Gaussian sigma 0.7 mm;
- ``excess_context``: the square root of (FLAIR above its grey-matter 90th percentile, sigma 0.7) x (the
  same at sigma 3).

The others are the program's own (``--score``): ``directed`` (the default), ``brightness`` (the same without its latent
factor), ``latent`` (that factor by itself), ``faithful`` (the paper's); ``directed_no_latents`` (candidates judged without latents); ``directed_half`` (the share of lesions among
a scan's candidates fixed at a half); ``directed_random`` and ``latent_random`` with
weights that nobody trained: training must help.

The first run preprocesses the scans (about twenty minutes on two cores) into ``build/detection``; later
ones score what the code or the weights have changed (ten minutes), or read what is remembered there. Real scans come from
``../shared/data``; without them only the phantoms are there. They are development data: a figure tuned
on them says little about other patients. A BIDS dataset of others, with their masks in ``derivatives/manual``
(``*_label-lesion_mask.nii.gz``), is put beside them by ``--patients``.

    python benchmarks/detection.py --table
    python benchmarks/detection.py --table --patients DIR --cases other
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Memory, Parallel, cpu_count, delayed
from joblib import hash as hash_of
from numpy.typing import NDArray
from scans import BANDS_ML, Case, imprinted_cases, preprocess, read_cases
from scipy import ndimage

from bids_wmh_uad.core.evaluation.overlap import dice, lesion_detection
from bids_wmh_uad.core.evaluation.ranking import Ranking
from bids_wmh_uad.core.image.intensity import smooth_inside
from bids_wmh_uad.core.lesion.components import total_volume_ml
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.lesion.segmentation import Segmentation, segment
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.anomaly import anomaly_map
from bids_wmh_uad.core.score.latent import AnomalyMap
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.models import load_decision, load_model, model_digest
from bids_wmh_uad.phantom.dataset import main as write_phantoms

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path(__file__).resolve().parents[1] / "build" / "detection"
CORE = Path(__file__).resolve().parents[1] / "bids_wmh_uad" / "core"
MEMORY = Memory(CACHE / "maps", verbose=0, compress=1)
HOSTS = ("sub-P18_ses-T1", "sub-cs26_ses-T1")
"""Development patients with few lesions of their own; those, with a margin, do not count."""
PROBABILITIES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Edges of the bins of the reliability curve."""
NEVER = 1e6
"""What nothing reaches, and what outweighs everything."""
Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector says of a scan.

    Attributes
    ----------
    score : (X, Y, Z) float32 array
    parameters : DetectionParameters
        Of the way from the map to the mask.
    decision : LesionDecision
        By which candidates are judged, where the parameters say so.
    evidence : (X, Y, Z) float32 array or None
        The network's.
    """

    score: Map
    parameters: DetectionParameters
    decision: LesionDecision = LesionDecision()  # noqa: RUF009 (frozen)
    evidence: Map | None = None

    def segment(self, case: Case) -> Segmentation:
        """The program's own last step, which makes its masks."""
        return segment(
            self.score, case.tissue, case.landmarks, case.affine,
            parameters=self.parameters, decision=self.decision, evidence=self.evidence,
        )  # fmt: skip


UNJUDGED = DetectionParameters(score="latent", threshold="tail")
"""The threshold rule alone, for maps that the decision does not know."""


def flair_z(case: Case, _seed: int) -> Detection:
    """FLAIR alone."""
    tissue, sigma = case.tissue, DetectionParameters.sigma_mm
    smooth = smooth_inside(tissue.flair_z, tissue.mask, case.zooms, sigma)
    return Detection(np.maximum(smooth, 0), UNJUDGED)


def excess_context(case: Case, _seed: int) -> Detection:
    """Bright here and around."""
    scan = case.scan
    level = np.percentile(scan.flair_z[scan.grey_matter & scan.mask], 90)
    excess = np.maximum(scan.flair_z - level, 0) * scan.mask
    near, around = (ndimage.gaussian_filter(excess, sigma) for sigma in (0.7, 3.0))
    found = AnomalyMap(np.asarray(np.sqrt(near * around) * scan.mask, dtype=np.float32), "cpu", ())
    return Detection(case.own(found).scores, UNJUDGED)


def program(
    case: Case, seed: int, score: str, random: bool = False, latents: bool = True, **options: Any
) -> Detection:
    """One of the program's own scores; with the lesion decision that belongs to it, or the one without latents."""
    params = DetectionParameters(score=score, **options)
    anomaly, evidence = program_map(case, params, seed, random)
    own = load_decision("default") if latents and evidence is not None else LesionDecision()
    return Detection(anomaly, params, own, evidence)


def program_map(
    case: Case, params: DetectionParameters, seed: int, random: bool = False
) -> tuple[Map, Map | None]:
    """Anomaly map and the network's evidence, on the FLAIR's own grid."""
    own = case.own(remembered_map(case, params, seed, random))
    return own.scores, own.evidence


def remembered_map(case: Case, params: DetectionParameters, seed: int, random: bool = False) -> AnomalyMap:
    """What the score gives on the working grid, remembered until the code, the weights or the scan change."""
    latent = () if random else load_decision("default").latent
    found: AnomalyMap = MEMORY.cache(compute_map)(
        case.scan, params.of_score(), latent, seed, random, version(random)
    )
    return found


def compute_map(
    scan: Scan,
    params: dict[str, Any],
    latent: tuple[float, ...],
    seed: int,
    random: bool,
    version: str,  # noqa: ARG001
) -> AnomalyMap:
    """Score a scan as the program does; `version` only names what is remembered."""
    return anomaly_map(
        build_autoencoder(seed).eval() if random else load_model("default")[0],
        scan,
        DetectionParameters(**params),
        np.random.default_rng(seed),
        direction=np.array(latent, dtype=np.float32) if latent else None,
    )


def version(random: bool) -> str:
    """Of everything that scores."""
    rooms = ("image", "network", "score", "svm")
    files = [
        CORE / "parameters.py",
        *(path for room in rooms for path in sorted((CORE / room).rglob("*.py"))),
    ]
    code = "".join(hash_of(path.read_bytes()) for path in files)
    return code if random else code + model_digest("default")


DETECTORS: dict[str, Callable[[Case, int], Detection]] = {
    "flair_z": flair_z,
    "excess_context": excess_context,
    "brightness": partial(program, score="brightness"),
    "directed": partial(program, score="directed"),
    "directed_no_latents": partial(program, score="directed", latents=False),
    "directed_half": partial(program, score="directed", prior_candidates=NEVER),
    "directed_random": partial(program, score="directed", random=True),
    "latent": partial(program, score="latent"),
    "latent_random": partial(program, score="latent", random=True),
    "faithful": partial(program, score="faithful", threshold="gm"),  # its scores may be negative
}
SEEDLESS = ("flair_z", "excess_context", "brightness")
BASELINES = ("flair_z", "excess_context")


def measure(case: Case, detection: Detection) -> dict[str, float]:
    """One map, and the mask that is made of it, against the truth."""
    inside, score = case.inside, detection.score
    segmentation = detection.segment(case)
    found, measures = (segmentation.lesions.labels > 0) & inside, segmentation.measures
    lesion = case.lesion & inside
    ranking = Ranking.of(score[inside], lesion[inside])
    lesions = lesion_detection(found, lesion)
    least = abs(np.linalg.det(case.affine[:3, :3])) / 1000  # one voxel: where nothing is found, nothing moves
    ends = [max(measures[f"volume_ml_threshold_{end}"], least) for end in ("minus20", "plus20")]
    return {
        "ap": ranking.average_precision(),
        "auroc": ranking.auroc(),
        "best_dice": ranking.best_dice()[0],
        "dice": dice(found, lesion),
        "recall": lesions.recall,
        "precision": lesions.precision,
        "lesion_f1": lesions.f1,
        "false_ml": total_volume_ml(found & ~lesion, case.affine),
        "volume_ratio": float(found.sum() / max(1, lesion.sum())),
        "covered": float(measures["volume_ml_lower"] <= case.volume_ml <= measures["volume_ml_upper"]),
        "threshold_ratio": float(ends[0] / ends[1]),
    }


def reliability(case: Case, detection: Detection) -> list[tuple[int, int]]:
    """Voxels of the probability map, and lesion voxels among them, in each bin of `PROBABILITIES`."""
    inside = case.inside & (detection.score > 0)
    bins = np.digitize(detection.segment(case).probability[inside], PROBABILITIES[1:-1])
    counts = [np.bincount(bins[kept], minlength=6) for kept in (bins >= 0, case.lesion[inside])]
    return [(int(all_), int(lesion)) for all_, lesion in zip(*counts, strict=True)]


def run(case: Case, name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """One detector on one scan: means over seeds."""
    torch.set_num_threads(1)
    used = seeds[:1] if name in SEEDLESS else seeds
    maps = [DETECTORS[name](case, seed) for seed in used]
    rows = [measure(case, score) for score in maps]
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    worst = min(row["ap"] for row in rows)
    return {
        "case": case.name,
        "kind": case.kind,
        "group": group_of(case),
        "ml": case.volume_ml,
        "detector": name,
        **means,
        "worst_ap": worst,
        "lesion_free": sum(row["false_ml"] == 0 for row in rows) / len(rows),
        **({"reliability": reliability(case, maps[0])} if name == "directed" else {}),
    }


PHANTOMS = {"phantom": (3, 3, 77, None), "controls": (0, 7, 78, None), "heavy": (2, 0, 79, 60.0)}
"""Patients, controls, seed and load (mL; None: 1 to 40) of the phantoms, by the name of their folder."""


def collect_phantoms(sets: Mapping[str, tuple[int, int, int, float | None]]) -> list[Case]:
    """Phantoms with their truth, made and preprocessed where they are not there yet."""
    cases: list[Case] = []
    for name, (patients, controls, seed, load) in sets.items():
        phantoms = CACHE / name
        if not phantoms.exists():
            numbers = ["--n-subjects", str(patients), "--n-controls", str(controls), "--seed", str(seed)]
            volume = [] if load is None else ["--lesion-volume", str(load)]
            thickness = ["--slice-thickness", "1", "3", "1", "4"]
            write_phantoms([str(phantoms), *numbers, *volume, *thickness, "--no-head"])
        preprocess(phantoms, CACHE / f"{name}-out")
        cases += read_cases(CACHE / f"{name}-out", phantoms / "derivatives" / "truth", "phantom", f"{name}-")
    return cases


def collect_real() -> list[Case]:
    """The development patients, where they are."""
    real = DATA / "ms-mni"
    if not real.is_dir():
        return []
    preprocess(real, CACHE / "ms-mni")
    return list(read_cases(CACHE / "ms-mni", real / "derivatives" / "manual", "real"))


def collect(per_band: int, others: Path | None) -> list[Case]:
    """All scans there are."""
    patients = collect_real()
    hosts = [case for case in patients if case.name in HOSTS]
    cases = collect_phantoms(PHANTOMS) + patients
    if hosts:
        cases += imprinted_cases(hosts, DATA / "ms-masks-mni", per_band, seed=0)
    if others is not None:
        out = CACHE / f"other-{hash_of(str(others.resolve()))}"
        preprocess(others, out)
        found = list(read_cases(out, others / "derivatives" / "manual", "other", "o"))
        if not found:
            raise SystemExit(f"{others}: no session with a finished result and a mask in derivatives/manual")
        cases += found
    return cases


def group_of(case: Case) -> str:
    """Which scans a scan is averaged with: its kind; imprinted ones and phantoms by load."""
    if case.kind not in ("imprinted", "phantom"):
        return case.kind
    bands = [f"from {low:g} mL" for low, _ in BANDS_ML if low <= case.volume_ml][-1:]
    return " ".join([case.kind, *(bands or ["below"])])


MEASURES = (
    "ap", "worst_ap", "best_dice", "dice", "recall", "precision", "lesion_f1", "false_ml", "volume_ratio", "covered",
    "threshold_ratio",
)  # fmt: skip
"""Measures of the groups' means."""


def aggregate(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Means by group of scans and detector."""
    groups = dict.fromkeys(row["group"] for row in rows)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for group in groups:
        for name in DETECTORS:
            own = [row for row in rows if row["group"] == group and row["detector"] == name]
            if own:
                keys = ("false_ml", "lesion_free") if group == "control" else MEASURES
                means = {key: round(float(np.mean([row[key] for row in own])), 4) for key in keys}
                table.setdefault(group, {})[name] = {**means, "scans": len(own)}
    return table


def pooled(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Share of lesion voxels in each bin of probability, by kind of scan."""
    curves: dict[str, list[float | None]] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row["reliability"] for row in rows if row["kind"] == kind and "reliability" in row]
        if own:
            total = np.sum(own, axis=0)
            curves[kind] = [round(lesion / count, 3) if count else None for count, lesion in total.tolist()]
    return curves


SHOWN = {
    "ap": "AP",
    "dice": "Dice",
    "recall": "recall",
    "precision": "precision",
    "lesion_f1": "F1",
    "false_ml": "false mL",
}
"""Measures that are printed, and what they are called."""


def show(rows: Sequence[dict[str, Any]], groups: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a table for each measure, by scan and detector, then the means by group."""
    names = [name for name in DETECTORS if any(row["detector"] == name for row in rows)]
    for key, title in SHOWN.items():
        print(f"\n**{title}**\n\n| scan | mL | " + " | ".join(names) + " |\n|---|---|" + "---|" * len(names))
        for case, ml in dict.fromkeys((row["case"], row["ml"]) for row in rows):
            own = {row["detector"]: row for row in rows if (row["case"], row["ml"]) == (case, ml)}
            print(f"| {case} | {ml:.1f} | " + " | ".join(f"{own[name][key]:.3f}" for name in names) + " |")
        for group, table in groups.items():
            if all(key in table[name] for name in names if name in table):
                cells = [f"{table[name][key]:.3f}" for name in names if name in table]
                print(f"| **{group}** | | " + " | ".join(cells) + " |")


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=list(DETECTORS))
    parser.add_argument("--cases", default="", help="only scans whose name or kind contains this")
    parser.add_argument("--patients", type=Path, metavar="DIR", help="BIDS dataset of other patients")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-band", type=int, default=4, help="imprinted scans in each band of load")
    parser.add_argument("--table", action="store_true", help="print a table, too")
    options = parser.parse_args()
    names = list(dict.fromkeys([*BASELINES, *options.detectors]))
    cases = [
        case
        for case in collect(options.per_band, options.patients)
        if options.cases in f"{case.name} {case.kind}"
    ]
    work = [(case, name) for case in cases for name in names]
    seeds = range(options.seeds)
    rows = Parallel(n_jobs=cpu_count())(delayed(run)(case, name, seeds) for case, name in work)
    groups = aggregate(rows)
    if options.table:
        show(rows, groups)
    content = {"seeds": options.seeds, "groups": groups, "reliability": pooled(rows), "scans": rows}
    print(json.dumps({"name": "detection", **content}))


if __name__ == "__main__":
    main()
