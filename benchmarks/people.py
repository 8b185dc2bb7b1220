"""What an encoder should see: the phantoms of ``make model`` as they are, without what the program marks in them, or people beside them.

One JSON line; with ``--table`` a readable table first. The train level prepares twelve phantom controls, those of ``make model``, and all people of
``../shared/data`` (one session each). Encoders learn with the default settings from

- ``whole``: all tissue of the phantoms, as the shipped encoder did;
- ``phantoms``: the phantoms without what the participant level marks in them without labels, and 2 mm around it;
- ``both``: the phantoms and the people, both without what is marked in them, but for the one on whose lesions the encoder is judged: one encoder for each of these.

Each is judged as `decision.py` judges the shipped encoder: the lesion decision learnt with its latents, leaving out that person's tissue as well, on the
candidates of that person's own sessions. Means over the seeds, and the standard deviation of the area under the ROC curve; ``auc`` has it seed by seed.
The candidates are those of the shipped encoder's map; with another encoder shipped they would be others.

The first run takes more than an hour on two cores, and leaves what it made in ``build/people`` and ``build/detection``.

    python benchmarks/people.py --table
    python benchmarks/people.py --table --encoders whole phantoms
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
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
KINDS = ("whole", "phantoms", "both")
EVERYBODY = "everybody"
"""Whom phantoms alone leave out."""


def dataset() -> Path:
    """The phantoms and the people, each person one participant."""
    made = ROOT / "bids"
    if not made.exists():
        unfinished = ROOT / "unfinished"  # of a run that was stopped
        shutil.rmtree(unfinished, ignore_errors=True)
        write_phantoms([str(unfinished), *PHANTOMS.split()])
        for path in sorted(path for name in DATASETS for path in (DATA / name).glob("sub-*")):
            (unfinished / path.name).symlink_to(path, target_is_directory=True)
        unfinished.rename(made)
    return made


def prepared(name: str, *labels: str, marked: bool) -> dict[str, Path]:
    """Controls as the train level prepares them, by session, with what the program marks or without; from an earlier run where there was one."""
    out, work, model = (ROOT / name / part for part in ("out", "work", "model"))
    program = [sys.executable, "-m", "bids_wmh_uad", str(dataset()), str(out)]
    of = ["-w", str(work), *(["--participant-label", *labels] if labels else [])]
    if not model.exists():
        if not marked:
            subprocess.run([*program, "participant", *of], check=True)
        short = ["--output-model", str(model), "--paradigm", "patient", "--epochs", "1"]
        subprocess.run([*program, "train", *of, *short], check=True)
    paths = work.glob("*_train_*/*/prepare/control")
    return {path.parents[1].name.removesuffix("_wf"): path for path in paths}


def controls_of(kinds: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The controls of each kind of encoder."""
    controls = {}
    if "whole" in kinds:
        phantoms = [path.name for path in dataset().glob("sub-*") if not path.is_symlink()]
        controls["whole"] = prepared("whole", *phantoms, marked=True)
    if {"phantoms", "both"} & set(kinds):
        controls["phantoms"] = controls["both"] = prepared("healthy", marked=False)
    return controls


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


def encoders(kinds: Sequence[str], seeds: int) -> Iterator[tuple[str, str, int]]:
    """Kind, person left out and seed of every encoder."""
    for seed in range(seeds):
        for kind in kinds:
            yield from ((kind, person, seed) for person in (PERSONS if kind == "both" else [EVERYBODY]))


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--encoders", nargs="+", choices=KINDS, default=KINDS, help="kinds of them")
    parser.add_argument("--table", action="store_true", help="print a table, too")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA}: the scans of people are not there")
    controls, wanted = controls_of(options.encoders), list(encoders(options.encoders, options.seeds))
    models = {name: ROOT / "models" / "-".join(map(str, name)) for name in wanted}
    Parallel(n_jobs=cpu_count())(
        delayed(train)(chosen(controls[kind], kind, person), models[kind, person, seed], seed)
        for kind, person, seed in wanted
    )
    found = gather({path.name: path for path in models.values()})
    table = {"no network": [judged(found, NAMES, None)], "shipped": [judged(found, NAMES, "shipped")]}
    for kind in options.encoders:
        for seed in range(options.seeds):
            left_out = {person: person if kind == "both" else EVERYBODY for person in PERSONS}
            own = {person: models[kind, other, seed].name for person, other in left_out.items()}
            table.setdefault(kind, []).append(judged(found, NAMES, own))
    rows = {
        name: {key: round(mean(row[key] for row in own), 3) for key in own[0]}
        | {"auc_sd": round(pstdev(row["auc"] for row in own), 3)}
        for name, own in table.items()
    }
    each = {name: [round(row["auc"], 3) for row in own] for name, own in table.items()}
    if options.table:
        print("| encoder | AUC | AP | precision | recall | F1 | sd of AUC |\n|---|---|---|---|---|---|---|")
        for name, row in rows.items():
            print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
    counts = {kind: len(chosen(own, kind, EVERYBODY)) for kind, own in controls.items()}
    content = {"seeds": options.seeds, "controls": counts, "encoders": rows, "auc": each}
    print(json.dumps({"name": "people", **content}))


if __name__ == "__main__":
    main()
