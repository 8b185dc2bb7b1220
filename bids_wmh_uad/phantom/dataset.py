"""A BIDS dataset of phantoms with its truth, and the command that writes one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bids_wmh_uad import __version__
from bids_wmh_uad.errors import CANNOT_CREATE, CannotCreateError, WmhUadError
from bids_wmh_uad.phantom.scanner import make_subject
from bids_wmh_uad.phantom.spec import Change, PhantomSpec, PhantomSubject

README = """Synthetic T1w and FLAIR scans made by bids_wmh_uad.phantom: no real person was scanned.
The anatomy comes from the ICBM 152 2009a symmetric maps that nilearn ships. The white matter
hyperintensities that were put in are known: see derivatives/truth.
"""
"""Text of the dataset's README."""
CHANGED = {"new": 3, "grown": 3, "shrunk": 2, "resolved": 2}
"""Numbers of lesions that change between two sessions, unless the command line says otherwise."""
FIRST_SESSION = "2020-01-01T12:00:00"
"""When followed people are scanned for the first time."""


def make_specs(
    n_subjects: int, n_controls: int, *, seed: int = 0, slice_thickness: Sequence[float] = (), **options: Any
) -> dict[str, PhantomSpec]:
    """Specs of a cohort: patients with lesion loads from 1 to 40 mL, then healthy controls.

    Parameters
    ----------
    n_subjects, n_controls : int
        Numbers of patients and of controls.
    seed : int
        Seeds the loads and, each with its own, the subjects.
    slice_thickness : sequence of float
        Of the FLAIR, in mm: dealt out to the subjects in turn; `PhantomSpec`'s own if not given.
    **options
        Other fields of `PhantomSpec`, the same for all; `lesion_volume_ml` here holds for all patients.

    Returns
    -------
    dict of str to PhantomSpec
        By participant: ``sub-01``, ``sub-02``, ...
    """
    rng = np.random.default_rng(seed)
    loads = np.round(np.exp(rng.uniform(np.log(1), np.log(40), n_subjects)), 1)
    fixed = options.pop("lesion_volume_ml", None)
    volumes = [float(x) if fixed is None else fixed for x in loads] + [0.0] * n_controls
    seeds = rng.choice(2**31, len(volumes), replace=False)
    zooms = options.pop("flair_zooms", PhantomSpec.flair_zooms)
    thickness = slice_thickness or (zooms[2],)
    return {
        f"sub-{k:02d}": PhantomSpec(
            seed=int(s),
            lesion_volume_ml=ml,
            flair_zooms=(*zooms[:2], thickness[(k - 1) % len(thickness)]),
            **options,
        )
        for k, (s, ml) in enumerate(zip(seeds, volumes, strict=True), start=1)
    }


def follow_up(
    specs: Mapping[str, PhantomSpec], change: Change, n_sessions: int = 2
) -> dict[str, PhantomSpec]:
    """Specs of people who are scanned again.

    Parameters
    ----------
    specs : mapping of str to PhantomSpec
        Of the first sessions, by participant.
    change : Change
        What happens between every two sessions; in healthy controls, who have no lesions, none come.
    n_sessions : int
        Sessions of each, from 2.

    Returns
    -------
    dict of str to PhantomSpec
        By session: ``sub-01_ses-1``, ``sub-01_ses-2``, ...
    """
    calm = replace(change, new=0)
    return {
        f"{prefix}_ses-{k + 1}": replace(spec, changes=(change if spec.lesion_volume_ml else calm,) * k)
        for prefix, spec in specs.items()
        for k in range(n_sessions)
    }


def write_dataset(
    directory: str | Path,
    specs: Sequence[PhantomSpec] | Mapping[str, PhantomSpec],
    *,
    derivatives: str | Path | None = "derivatives/truth",
) -> None:
    """Write a valid BIDS dataset of phantoms, and their truth as a derivatives dataset.

    Parameters
    ----------
    directory : path
        Made if missing.
    specs : sequence or mapping of str to PhantomSpec
        One per session; keys are ``sub-01`` or ``sub-01_ses-1``, a sequence is numbered from ``sub-01``.
    derivatives : path or None
        Where the truth goes, relative to `directory`: lesion and brain masks. None writes none.

    Raises
    ------
    CannotCreateError
        The directory cannot be written.
    """
    root = Path(directory)
    if not isinstance(specs, Mapping):
        specs = {f"sub-{k:02d}": spec for k, spec in enumerate(specs, start=1)}
    truth = None if derivatives is None else root / derivatives
    try:
        _write_top(root, specs, {"Name": "Phantoms with known lesions", "DatasetType": "raw"})
        if truth is not None:
            links = {"raw": os.path.relpath(root, truth)}
            metadata = {"Name": "Truth of the phantoms", "DatasetType": "derivative", "DatasetLinks": links}
            _write_top(truth, {}, metadata)
        for prefix, spec in specs.items():
            subject = make_subject(spec)
            _write_scans(root, prefix, subject)
            if truth is not None:
                _write_truth(truth, prefix, subject)
        _write_sessions(root, specs)
    except OSError as error:
        raise CannotCreateError(CANNOT_CREATE.format(path=root, reason=error.strerror or error)) from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_top(root: Path, specs: Mapping[str, PhantomSpec], metadata: dict[str, Any]) -> None:
    """Write dataset_description.json, README and, for the raw dataset, participants.tsv."""
    root.mkdir(parents=True, exist_ok=True)
    generator = {"Name": "bids_wmh_uad.phantom", "Version": __version__}
    common = {"BIDSVersion": "1.10.0", "License": "CC0", "GeneratedBy": [generator]}
    _write_json(root / "dataset_description.json", metadata | common)
    (root / "README").write_text(README, encoding="utf-8")
    if not specs:
        return
    groups: dict[str, str] = {}
    for prefix, spec in specs.items():
        group = "patient" if spec.lesion_volume_ml else groups.get(prefix.split("_")[0], "control")
        groups[prefix.split("_")[0]] = group
    rows = ["participant_id\tgroup", *("\t".join(row) for row in groups.items())]
    (root / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    levels = {"patient": "has lesions", "control": "has none"}
    _write_json(root / "participants.json", {"group": {"Description": "Cohort", "Levels": levels}})


def _write_scans(root: Path, prefix: str, subject: PhantomSubject) -> None:
    anat = root.joinpath(*prefix.split("_"), "anat")
    anat.mkdir(parents=True, exist_ok=True)
    timing = {
        "T1w": {"RepetitionTime": 2.3, "EchoTime": 0.003, "InversionTime": 0.9, "FlipAngle": 9},
        "FLAIR": {"RepetitionTime": 9.0, "EchoTime": 0.12, "InversionTime": 2.5, "FlipAngle": 90},
    }
    for suffix, image in (("T1w", subject.t1w), ("FLAIR", subject.flair)):
        image.to_filename(anat / f"{prefix}_{suffix}.nii.gz")
        metadata = timing[suffix] | {"MagneticFieldStrength": 3, "SkullStripped": not subject.spec.head}
        _write_json(anat / f"{prefix}_{suffix}.json", metadata)


def _write_truth(root: Path, prefix: str, subject: PhantomSubject) -> None:
    anat = root.joinpath(*prefix.split("_"), "anat")
    anat.mkdir(parents=True, exist_ok=True)
    flair = f"bids:raw:{'/'.join(prefix.split('_'))}/anat/{prefix}_FLAIR.nii.gz"
    for label, kind, image in (
        ("label-WMH", "Lesion", subject.lesions),
        ("desc-brain", "Brain", subject.brain),
    ):
        name = f"{prefix}_space-FLAIR_{label}_mask"
        image.to_filename(anat / f"{name}.nii.gz")
        metadata = {"Type": kind, "Sources": [flair], "SpatialReference": flair}
        _write_json(anat / f"{name}.json", metadata | {"T1wToFLAIR": subject.t1w_to_flair.tolist()})

    if subject.followed is not None:
        _write_course(anat / f"{prefix}_space-FLAIR_desc-lesions_dseg", flair, subject)


def _write_course(stem: Path, flair: str, subject: PhantomSubject) -> None:
    """Write a followed person's numbered lesions, and what became of each since the session before."""
    subject.followed.to_filename(f"{stem}.nii.gz")
    about = {"Sources": [flair], "SpatialReference": flair, "FirstToFLAIR": subject.first_to_flair.tolist()}
    _write_json(Path(f"{stem}.json"), about)
    rows = [
        (x.index, f"lesion-{x.index}", x.fate or "n/a", f"{x.volume_before_mm3:.2f}", f"{x.volume_mm3:.2f}")
        for x in subject.course
    ]
    first = not subject.spec.changes
    lines = ["index\tname\tfate\tvolume_before_mm3\tvolume_mm3"]
    lines += ["\t".join(map(str, (*row[:3], "n/a" if first else row[3], row[4]))) for row in rows]
    Path(f"{stem}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_sessions(root: Path, specs: Mapping[str, PhantomSpec]) -> None:
    """Write when each session of the followed people was, the first on :data:`FIRST_SESSION`."""
    people: dict[str, list[str]] = {}
    for prefix, spec in specs.items():
        participant, _, session = prefix.partition("_")
        if spec.changes is not None and session:
            when = datetime.fromisoformat(FIRST_SESSION) + timedelta(
                days=round(365.25 * sum(x.years for x in spec.changes))
            )
            people.setdefault(participant, []).append(f"{session}\t{when.isoformat()}")
    for participant, rows in people.items():
        lines = ["session_id\tacq_time", *rows]
        path = root / participant / f"{participant}_sessions.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``python -m bids_wmh_uad.phantom``."""
    parser = argparse.ArgumentParser(prog="python -m bids_wmh_uad.phantom", description=main.__doc__)
    parser.add_argument("output_dir", type=Path, metavar="OUT")
    parser.add_argument("--n-subjects", type=int, default=2, help="patients (default: %(default)s)")
    parser.add_argument("--n-controls", type=int, default=1, help="healthy controls (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--lesion-volume", type=float, metavar="ML", help="of every patient (default: 1-40 mL)"
    )
    parser.add_argument(
        "--slice-thickness", type=float, nargs="+", default=(), metavar="MM",
        help="of the FLAIR; several are dealt out in turn",
    )  # fmt: skip
    parser.add_argument("--no-head", action="store_true", help="skull-stripped brains")
    parser.add_argument("--n-sessions", type=int, default=1, help="of each (default: %(default)s)")
    later = parser.add_argument_group("what happens between two sessions (--n-sessions 2 or more)")
    later.add_argument("--unchanged", action="store_true", help="nothing: scanned again, in another position")
    for name, count in CHANGED.items():
        later.add_argument(
            f"--{name}", type=int, default=count, metavar="N", help="lesions (default: %(default)s)"
        )
    later.add_argument(
        "--growth", type=float, default=Change.growth, metavar="SHARE", help="(default: %(default)s)"
    )
    later.add_argument(
        "--shrinkage", type=float, default=Change.shrinkage, metavar="SHARE", help="(default: %(default)s)"
    )
    later.add_argument(
        "--atrophy", type=float, default=0.0, metavar="SHARE", help="by which the ventricles grow"
    )
    later.add_argument("--other-scanner", action="store_true", help="tissues have other contrasts")
    later.add_argument(
        "--scale", type=float, nargs=3, default=Change.scale, metavar="FACTOR",
        help="by which the later sessions' heads are larger: right-left, posterior-anterior, inferior-superior",
    )  # fmt: skip
    later.add_argument("--years", type=float, default=Change.years, help="(default: %(default)s)")
    return parser


def _read_change(options: argparse.Namespace) -> Change:
    if options.unchanged:
        return Change(other_scanner=options.other_scanner, scale=tuple(options.scale), years=options.years)
    values = {x.name: getattr(options, x.name) for x in fields(Change) if hasattr(options, x.name)}
    return Change(**values | {"scale": tuple(options.scale)})


def main(argv: Sequence[str] | None = None) -> int:
    """Write a phantom dataset from the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default the process's own.

    Returns
    -------
    int
        Exit code.
    """
    options = build_parser().parse_args(argv)
    try:
        specs = make_specs(
            options.n_subjects,
            options.n_controls,
            seed=options.seed,
            head=not options.no_head,
            slice_thickness=options.slice_thickness,
            **({} if options.lesion_volume is None else {"lesion_volume_ml": options.lesion_volume}),
        )
        if options.n_sessions > 1:
            specs = follow_up(specs, _read_change(options), options.n_sessions)
        write_dataset(options.output_dir, specs)
    except WmhUadError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{len(specs)} phantoms written to {options.output_dir}\n")
    return 0
