"""Whether an encoder that saw people tells lesions from other bright structures better than one that saw phantoms alone.

One JSON line; with ``--table`` a readable table first. The train level prepares twelve phantom controls, those of ``make model``, and all people of
``../shared/data`` (one session each). What the participant level marks without labels is left out of both, with 2 mm around it; the shipped encoder saw
all of its phantoms. Encoders learn with the default settings from

- ``phantoms``: the phantoms alone;
- ``both``: the phantoms and the people, but for the one on whose lesions the encoder is judged: one encoder for each of these.

Each is judged as `decision.py` judges the shipped encoder: the lesion decision learnt with its latents, leaving out that person's tissue as well, on the
candidates of that person's own sessions. Means over the seeds, and the standard deviation of the area under the ROC curve.

The first run takes more than an hour on two cores, and leaves what it made in ``build/people`` and ``build/detection``.

    python benchmarks/people.py --table
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, pstdev

import torch
from decision import NAMES, PERSONS, gather, judged
from detection import DATA
from joblib import Parallel, cpu_count, delayed

from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.phantom.dataset import main as write_phantoms
from bids_wmh_uad.train.launch import Launch, Meeting
from bids_wmh_uad.train.learning import learn

ROOT = Path(__file__).resolve().parents[1] / "build" / "people"
PHANTOMS = "--n-subjects 0 --n-controls 12 --seed 2023 --no-head --slice-thickness 1 3 1 4"
"""The controls of ``make model``."""
DATASETS = ("ms-mni", "ms-raw")
EVERYBODY = "everybody"
"""Whom phantoms alone leave out."""


def prepared() -> dict[str, Path]:
    """All controls as the train level prepares them, by session; from an earlier run where there was one."""
    dataset, out, work = (ROOT / name for name in ("bids", "out", "work"))
    if not dataset.exists():
        unfinished = ROOT / "unfinished"  # of a run that was stopped
        shutil.rmtree(unfinished, ignore_errors=True)
        write_phantoms([str(unfinished), *PHANTOMS.split()])
        for path in sorted(path for name in DATASETS for path in (DATA / name).glob("sub-*")):
            (unfinished / path.name).symlink_to(path, target_is_directory=True)
        unfinished.rename(dataset)
    if not (ROOT / "model").exists():
        program = [sys.executable, "-m", "bids_wmh_uad", str(dataset), str(out)]
        subprocess.run([*program, "participant", "-w", str(work)], check=True)
        model = ["--output-model", str(ROOT / "model"), "--paradigm", "patient", "--epochs", "1"]
        subprocess.run([*program, "train", "-w", str(work), *model], check=True)
    paths = work.glob("*_train_*/*/prepare/control")
    return {path.parents[1].name.removesuffix("_wf"): path for path in paths}


def chosen(controls: dict[str, Path], kind: str, left_out: str) -> dict[str, Path]:
    """The controls of one encoder."""
    others = [left_out] if kind == "both" else people()
    return {label: path for label, path in controls.items() if not any(other in label for other in others)}


def people() -> list[str]:
    """Labels of all people there are."""
    return [path.name.removeprefix("sub-") for name in DATASETS for path in (DATA / name).glob("sub-*")]


def train(controls: dict[str, Path], model: Path, seed: int) -> None:
    """Train one encoder, where it is not there yet."""
    if not (model / "model.json").is_file():
        with tempfile.TemporaryDirectory() as out:
            argv = ["/none", out, "train", "--output-model", str(model), "--random-seed", str(seed)]
            options = ["--omp-nthreads", "1", "--paradigm", "patient"]
            learn(controls, parse_args([*argv, *options]), Meeting(Launch()), torch.device("cpu"))


def encoders(seeds: int) -> Iterator[tuple[str, str, int]]:
    """Kind, person left out and seed of every encoder."""
    for seed in range(seeds):
        yield "phantoms", EVERYBODY, seed
        yield from (("both", person, seed) for person in PERSONS)


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", action="store_true", help="print a table, too")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA}: the scans of people are not there")
    controls, wanted = prepared(), list(encoders(options.seeds))
    models = {name: ROOT / "models" / "-".join(map(str, name)) for name in wanted}
    Parallel(n_jobs=cpu_count())(
        delayed(train)(chosen(controls, kind, person), models[kind, person, seed], seed)
        for kind, person, seed in wanted
    )
    found = gather({path.name: path for path in models.values()})
    table = {"no network": [judged(found, NAMES, None)], "shipped": [judged(found, NAMES, "shipped")]}
    for seed in range(options.seeds):
        own = {person: models["both", person, seed].name for person in PERSONS}
        same = models["phantoms", EVERYBODY, seed].name
        table.setdefault("phantoms", []).append(judged(found, NAMES, same))
        table.setdefault("both", []).append(judged(found, NAMES, own))
    rows = {
        name: {key: round(mean(row[key] for row in own), 3) for key in own[0]}
        | {"auc_sd": round(pstdev(row["auc"] for row in own), 3)}
        for name, own in table.items()
    }
    if options.table:
        print("| encoder | AUC | AP | precision | recall | F1 | sd of AUC |\n|---|---|---|---|---|---|---|")
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
    print(json.dumps({"name": "people", "seeds": options.seeds, "controls": len(controls), "encoders": rows}))


if __name__ == "__main__":
    main()
