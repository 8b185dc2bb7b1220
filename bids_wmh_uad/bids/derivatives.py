"""Names, sidecars and atomic writes of the output dataset.

:func:`output_path` and its neighbours make every name. Outputs go into
a staging tree inside the work directory, and :func:`publish` moves the files to the output directory: each
one appears whole or not at all, and one that is already right is not touched. The
summary comes last: where it is, the session is finished.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bids_wmh_uad import __version__
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import SPACES, TEMPLATE, Method
from bids_wmh_uad.files import dump_json, write_atomically
from bids_wmh_uad.reading import read_object, sha256

CODE_URL = "https://github.com/bids-apps/bids-wmh-uad"
"""Address of the program's source."""
BIDSIGNORE = (
    "*.html",
    "CITATION.*",
    "logs",
    "work",
    "figures",
    "group_*",
    "*_map.nii.gz",
    "*_map.json",
    "*_xfm.*",
    "*_summary.json",
    "*change_lesions.*",
    "*_longitudinal.json",
)
"""Patterns of outputs that no BIDS specification names yet."""
README = """# White matter hyperintensities, found by bids-wmh-uad

A BIDS derivatives dataset. `sub-*.html` are the pages to look at first: read their warnings before using the numbers.

- `sub-*/[ses-*/]anat`: for each session, on the FLAIR's own grid, the anomaly map, the probability and the mask of lesions
  (`label-WMH`), numbered lesions and candidates that were not taken for lesions, regions and lobes (`dseg`, a table
  beside each), preprocessed scans, transforms, and the numbers (`desc-wmh_summary.json`). With `--output-spaces` probability
  and mask are there in other spaces too (`space-T1w`, `space-MNI152NLin2009aSym`): volumes are those of `space-FLAIR`.
- with `--longitudinal`, beside each later session what changed since the one before: a signed map, new, enlarging and shrinking
  tissue, and a table of the lesions followed (`desc-change_lesions.tsv`); `sub-*/sub-*_desc-change_longitudinal.json` sums it up.
- `group_wmh.tsv` (a row for each session) and `group_lesions.tsv` (a row for each lesion), after the group level.

The `.json` beside an image or table says what it was made from and what each column means. What BIDS does not name yet is
listed in `.bidsignore`. How to cite: `CITATION.md`. Research software: not for diagnosis or any clinical use.
"""
"""What is written where the dataset has no readme of its own."""
COMPRESSION = 3
"""Level at which images are compressed: higher ones take longer for files that are hardly smaller."""
PREPROCESSING_VERSION = 3
"""Number of the chain of steps: to be raised with every change that makes other images or transforms."""
OUTPUTS = {
    "flair": "space-FLAIR_desc-preproc_FLAIR.nii.gz",
    "t1w": "space-FLAIR_desc-preproc_T1w.nii.gz",
    "brain": "space-FLAIR_desc-brain_mask.nii.gz",
    "anomaly": "space-FLAIR_desc-anomaly_map.nii.gz",
    "evidence": "space-FLAIR_desc-evidence_map.nii.gz",
    "brightness": "space-FLAIR_desc-brightness_map.nii.gz",
    "probability": "space-FLAIR_label-WMH_probseg.nii.gz",
    "mask": "space-FLAIR_label-WMH_mask.nii.gz",
    "lesions": "space-FLAIR_desc-lesions_dseg.nii.gz",
    "rejected": "space-FLAIR_desc-rejected_dseg.nii.gz",
    "regions": "space-FLAIR_desc-regions_dseg.nii.gz",
    "lobes": "space-FLAIR_desc-lobes_dseg.nii.gz",
    "table": "space-FLAIR_desc-lesions_dseg.tsv",
    "rejected_table": "space-FLAIR_desc-rejected_dseg.tsv",
    "regions_table": "space-FLAIR_desc-regions_dseg.tsv",
    "lobes_table": "space-FLAIR_desc-lobes_dseg.tsv",
    "t1w_to_flair": "from-T1w_to-FLAIR_mode-image_xfm.txt",
    "t1w_to_template": f"from-T1w_to-{TEMPLATE}_mode-image_xfm.txt",
    "flair_to_template": f"from-FLAIR_to-{TEMPLATE}_mode-image_xfm.txt",
    "summary": "desc-wmh_summary.json",
}
"""Ends of the names of a session's outputs, after the FLAIR's entities."""
IMAGE_TYPES = {
    "flair": "float32",
    "t1w": "float32",
    "brain": "uint8",
    "anomaly": "float32",
    "evidence": "float32",
    "brightness": "float32",
    "probability": "float32",
    "mask": "uint8",
    "lesions": "int32",
    "rejected": "int32",
    "regions": "uint8",
    "lobes": "uint8",
}
"""The images among the outputs, and the numpy type that each is stored in."""
IN_SPACES = ("probability", "mask")
"""The images that are made in other spaces too."""
CHANGE_OUTPUTS = {
    "map": "space-FLAIR_desc-{kind}change_map.nii.gz",
    "new": "space-FLAIR_desc-{kind}new_mask.nii.gz",
    "enlarging": "space-FLAIR_desc-{kind}enlarging_mask.nii.gz",
    "shrinking": "space-FLAIR_desc-{kind}shrinking_mask.nii.gz",
    "table": "desc-{kind}change_lesions.tsv",
}
"""Ends of the names of what changed since another session, after the later FLAIR's entities; see `CHANGE_KINDS`."""
CHANGE_FIGURE = "desc-{kind}change_FLAIR.svg"
"""End of the name of the figure of both sessions, among the participant's figures."""
CHANGE_KINDS = {"consecutive": "", "total": "total"}
"""What ``{kind}`` is: of a session and the one before it, and of the last and the first of more than two."""
TO_COMMON = "from-FLAIR_to-longitudinal_mode-image_xfm.txt"
"""End of the name of a session's motion into the space that is common to a participant's sessions."""
LONGITUDINAL = "desc-change_longitudinal.json"
"""End of the name of what changed between all sessions of a participant: where it is, the comparison is finished."""
FAILURE = "desc-failed_summary.json"
"""End of the name of what a failed session leaves."""
TRANSFORMS = ("t1w_to_flair", "t1w_to_template", "flair_to_template")
"""The transforms among the outputs."""


def write_dataset_files(output_dir: Path, bids_dir: Path | None) -> None:
    """Write the files at the dataset's top: description, ``.bidsignore``, readme; safe with many writers at once.

    The authors are the raw dataset's, for these are their data.

    Parameters
    ----------
    output_dir : Path
        The derivatives dataset.
    bids_dir : Path or None
        The raw dataset, linked as ``bids:raw:``.
    """
    description: dict[str, Any] = {
        "Name": "bids-wmh-uad: white matter hyperintensities",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": "See the licence of the source dataset",
        "HowToAcknowledge": "Please cite the works listed in CITATION.md.",
        "GeneratedBy": [{"Name": "bids-wmh-uad", "Version": __version__, "CodeURL": CODE_URL}],
    }
    if bids_dir is not None:
        description["DatasetLinks"] = {"raw": bids_dir.as_uri()}
        authors = read_summary(bids_dir / "dataset_description.json").get("Authors")
        description |= {"Authors": authors} if isinstance(authors, list) and authors else {}
    write_atomically(output_dir / ".bidsignore", ("\n".join(BIDSIGNORE) + "\n").encode())
    if not any((output_dir / f"README{ending}").exists() for ending in ("", ".rst", ".txt", ".md")):
        write_atomically(output_dir / "README.md", README.encode())
    # last: where it is, the group level takes it that the others are
    write_atomically(output_dir / "dataset_description.json", dump_json(description))


def raw_uri(path: Path, bids_dir: Path) -> str:
    """The BIDS URI of a raw file."""
    return f"bids:raw:{path.relative_to(bids_dir).as_posix()}"


def derivative_uri(session: Session, output: str) -> str:
    """The BIDS URI of one of the session's own outputs, by its name in :data:`OUTPUTS`."""
    return f"bids::{output_path(Path(), session, output).as_posix()}"


def output_path(root: Path, session: Session, output: str, space: str = SPACES[0]) -> Path:
    """Where one of the session's outputs is, by its name in :data:`OUTPUTS`; those :data:`IN_SPACES` may be in another space."""
    ending = OUTPUTS[output].replace(f"space-{SPACES[0]}", f"space-{space}")
    return session_directory(root, session.subject, session.session) / f"{session.prefix}_{ending}"


def other_spaces(output_dir: Path, session: Session, asked: Sequence[str]) -> tuple[str, ...]:
    """The spaces beyond the FLAIR's own in which the session's images are to be.

    Those that were asked for, and those in which an earlier run left any: a new result makes these anew as well,
    so that none is lost, and none is of an older result than the others.
    """
    return tuple(
        space
        for space in SPACES[1:]
        if space in asked or any(path.is_file() for path in space_paths(output_dir, session, space))
    )


def space_paths(output_dir: Path, session: Session, space: str) -> list[Path]:
    """The session's images in another space than the FLAIR's."""
    return [output_path(output_dir, session, output, space) for output in IN_SPACES]


def figure_path(root: Path, session: Session, desc: str) -> Path:
    """Where one of the figures of the session's page is; `desc` says what it shows."""
    return root / f"sub-{session.subject}" / "figures" / f"{session.prefix}_desc-{desc}_FLAIR.svg"


def longitudinal_path(root: Path, subject: str) -> Path:
    """Where what changed between a participant's sessions is summed up."""
    return root / f"sub-{subject}" / f"sub-{subject}_{LONGITUDINAL}"


def session_directory(root: Path, subject: str, session: str | None) -> Path:
    """``root/sub-X[/ses-Y]/anat``."""
    parts = [f"sub-{subject}"] + ([f"ses-{session}"] if session else [])
    return root.joinpath(*parts, "anat")


def failure_path(output_dir: Path, subject: str, session: str | None) -> Path:
    """Where a failed session leaves its reason, for the group table: there only while it has no result."""
    name = f"sub-{subject}" + (f"_ses-{session}" if session else "") + f"_{FAILURE}"
    return session_directory(output_dir, subject, session) / name


def lock_path(output_dir: Path, name: str) -> Path:
    """The lock of what only one process may make at a time: ``sub-X``, ``sub-X/ses-Y``, ``group``, ``train``."""
    return output_dir / "logs" / f"{name.replace('/', '_')}.lock"


def signature(session: Session, method: Method, model_digest: str) -> str:
    """What the session's outputs depend on: the images' content, the method, the model, the version."""
    return _signature(session, {**asdict(method), "model": model_digest, "version": __version__})


def preprocessing_signature(session: Session, seed: int) -> str:
    """What the session's preprocessing depends on: the images' content, the seed, the chain of steps."""
    return _signature(session, {"seed": seed, "preprocessing": PREPROCESSING_VERSION})


def _signature(session: Session, settings: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for path in (session.flair, session.t1w):
        digest.update(sha256(path).digest())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def is_finished(
    output_dir: Path, session: Session, method: Method, model_digest: str, spaces: Sequence[str] = ()
) -> bool:
    """Whether every output of the session, also in these other spaces, is there, made from the same inputs in the same way."""
    paths = [output_path(output_dir, session, output) for output in OUTPUTS]
    paths += [path for space in spaces for path in space_paths(output_dir, session, space)]
    paths += [sidecar_path(path) for path in paths if path.suffix in (".gz", ".txt")]
    if not all(path.is_file() for path in paths):
        return False
    summary = read_summary(output_path(output_dir, session, "summary"))
    try:
        return bool(summary.get("signature") == signature(session, method, model_digest))
    except OSError:  # a scan that cannot be read: running the session says so
        return False


def sidecar_path(path: Path) -> Path:
    """The JSON file beside an image or transform."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".txt") + ".json")


def read_summary(path: Path) -> dict[str, Any]:
    """Read a session's summary; empty if it is absent or no JSON object (half a file is no result)."""
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def publish(staging: Path, output_dir: Path) -> list[Path]:
    """Move staged files to the output directory, the summary last; images are compressed.

    Parameters
    ----------
    staging : Path
        A tree like the output directory's, of one session, or of the comparison of a participant's sessions.
    output_dir : Path

    Returns
    -------
    list of Path
        The files written, relative to `output_dir`; those already right are not among them.
    """
    staged = sorted(path for path in staging.rglob("*") if path.is_file())
    staged.sort(key=lambda path: path.name.endswith((OUTPUTS["summary"], LONGITUDINAL)))
    names = [published_name(path.relative_to(staging)) for path in staged]
    return [
        name
        for path, name in zip(staged, names, strict=True)
        if write_atomically(output_dir / name, _published_content(path))
    ]


def published_name(name: Path) -> Path:
    """What a staged file is called where it is published: images are compressed."""
    return name.with_name(name.name + ".gz") if name.suffix == ".nii" else name


def _published_content(path: Path) -> bytes:
    content = path.read_bytes()
    # no time and no name in the header: the same image gives the same bytes
    return gzip.compress(content, compresslevel=COMPRESSION, mtime=0) if path.suffix == ".nii" else content


def remove_tree(path: Path) -> None:
    """Remove a directory that may not be there."""
    shutil.rmtree(path, ignore_errors=True)
