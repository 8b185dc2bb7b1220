"""What the JSON file beside each image says: ours, and the raw scans'."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.tables import LABELS, LESION_COLUMNS
from bids_wmh_uad.config import TEMPLATE, Method
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.models import about_one_class, load_decision
from bids_wmh_uad.reading import read_object

UNITS = "as scanned, after N4 bias-field correction"
TEMPLATE_URL = "https://www.bic.mni.mcgill.ca/ServicesAtlases/ICBM152NLin2009"
"""Where the template is described, by those who made it."""
SPACE_TRANSFORMS = {"T1w": "t1w_to_flair", TEMPLATE: "flair_to_template"}
"""The transform, by its name in ``OUTPUTS``, that ties the FLAIR to another space, in one direction or the other."""
SHIFTED_UNITS = "as scanned plus IntensityShift, background 0, after N4 bias-field correction"


def sidecars(
    session: Session,
    bids_dir: Path,
    method: Method,
    model_digest: str,
    one_class: dict[str, Any],
    contrasts: dict[str, dict[str, Any]],
    threshold: dict[str, Any],
    device: str,
) -> dict[str, dict[str, Any]]:
    """The JSON sidecar of each of the session's images and transforms.

    Parameters
    ----------
    session : Session
    bids_dir : Path
        Root of the raw dataset.
    method : Method
    model_digest, one_class : str, dict
        The model's, and what was fitted to what (``Paradigm``, ``Nu``, ...): neither is said of a score without a model.
    contrasts : dict
        What is known of the ``flair`` and the ``t1w``: ``SkullStripped``, ``WhiteMatter`` mode and scale.
    threshold : dict
        The operating point.
    device : str
        Where the anomaly map was computed: ``cpu`` or ``cuda``.

    Returns
    -------
    dict
        By the output's name in ``OUTPUTS``; each has ``Sources`` and, for images, ``SpatialReference``.
    """
    raw = {name: derivatives.raw_uri(getattr(session, name), bids_dir) for name in ("flair", "t1w")}
    out = {name: derivatives.derivative_uri(session, name) for name in derivatives.OUTPUTS}
    both = [raw["flair"], raw["t1w"]]
    scoring: dict[str, Any] = {"Score": method.score}
    if method.parameters.uses_network:
        scoring["Model"] = {"Name": Path(method.model).name, "SHA256": model_digest}
        scoring["OneClassSVM"] = one_class
    described: dict[str, dict[str, Any]] = {
        "flair": {
            "Sources": [raw["flair"]],
            "Description": "FLAIR after bias field correction.",
            "Units": UNITS,
            **contrasts["flair"],
        },
        "t1w": {
            "Sources": both,
            "Description": "T1w after bias field correction, on the FLAIR's grid.",
            "Units": UNITS,
            **contrasts["t1w"],
        },
        "brain": {"Sources": both, "Description": "Brain: 1 inside.", "Type": "Brain"},
        "anomaly": {
            "Sources": [out["flair"], out["t1w"], out["brain"]],
            "Description": "Raw anomaly score, larger = more abnormal, 0 outside the brain.",
            "Units": "arbitrary",
            "Device": device,
            **scoring,
            "Parameters": asdict(method.parameters),
        },
        **_of_lesions(method, out, scoring, threshold),
        **_of_labels(out),
    }  # fmt: skip
    for meta in described.values():
        meta["SpatialReference"] = raw["flair"]
    transforms = {"t1w_to_flair": both, "t1w_to_template": [raw["t1w"]], "flair_to_template": both}
    described |= {
        name: {"Sources": sources, "Type": "linear", "Format": "ITK text"}
        for name, sources in transforms.items()
    }
    for name in ("t1w_to_template", "flair_to_template"):
        described[name]["Template"] = TEMPLATE
    return described


def _of_labels(out: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What is said of the images that have the same labels in every session."""
    texts = {
        "regions": "Where lesions lie is told from these regions.",
        "lobes": "Lobes of the Desikan-Killiany atlas, carried into the white matter and registered by an affine; 0 in nuclei, ventricles and the posterior fossa.",
    }
    return {
        name: {
            "Sources": [out["flair"], out["t1w"], out["brain"]],
            "Description": text,
            "Labels": {label: number for number, label in enumerate(LABELS[name], start=1)},
        }
        for name, text in texts.items()
    }


def _of_lesions(
    method: Method, out: dict[str, str], scoring: dict[str, Any], threshold: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What is said of the images that lead from the anomaly map to the lesions."""
    decision = load_decision(method.model) if method.parameters.uses_network else LesionDecision()
    return {
        "brightness": {
            "Sources": [out["flair"], out["t1w"], out["brain"]],
            "Description": "How bright FLAIR is against white matter and against what is usual at its T1w: the score 'brightness', which the group level evaluates beside the model. 0 everywhere where it could not be computed.",
            "Units": "arbitrary",
            "Parameters": asdict(method.parameters),
        },
        "evidence": {
            "Sources": [out["flair"], out["t1w"], out["brain"]],
            "Description": "What the network's latents say of being a lesion, where the anomaly score is above 0; 0 without a network.",
            "Units": "log-odds",
            **scoring,
            "LesionDecision": asdict(decision),
        },
        "probability": {
            "Sources": [out["anomaly"]],
            "Description": "Probability of lesion, 0 to 1; 0.5 at the threshold.",
            "Calibration": "Logistic in the logarithm of score / threshold, 0.5 at the threshold, times the probability that the voxel's candidate is a lesion. Both follow semi-synthetic scans and phantoms; on a scanner of its own it orders voxels, no more.",
            "Threshold": threshold,
        },
        "mask": {
            "Sources": [out["anomaly"], out["brain"]],
            "Description": "White matter hyperintensities: 1 inside.",
            "Type": "Lesion",
            "MinimumLesionVolume": method.min_lesion_volume,
            "Threshold": threshold,
        },
        "lesions": {
            "Sources": [out["mask"]],
            "Description": "Connected lesions (26 neighbours), largest first.",
            **LESION_COLUMNS,
        },
        "rejected": {
            "Sources": [out["anomaly"], out["flair"], out["t1w"], out["regions"]],
            "Description": "Candidates that were not taken for lesions; the table beside it says why.",
            **LESION_COLUMNS,
        },
    }


def space_sidecars(session: Session, bids_dir: Path, space: str) -> dict[str, dict[str, Any]]:
    """The JSON sidecar of each of the session's images in another space than the FLAIR's, by its name in ``OUTPUTS``.

    Parameters
    ----------
    session : Session
    bids_dir : Path
        Root of the raw dataset.
    space : {"T1w", "MNI152NLin2009aSym"}
    """
    transform = derivatives.derivative_uri(session, SPACE_TRANSFORMS[space])
    about = {
        "SpatialReference": TEMPLATE_URL if space == TEMPLATE else derivatives.raw_uri(session.t1w, bids_dir)
    }
    about |= {"Template": TEMPLATE} if space == TEMPLATE else {}
    texts = {
        "probability": "Probability of lesion, 0 to 1: the FLAIR's, resampled linearly.",
        "mask": "White matter hyperintensities, 1 inside: the FLAIR's mask, each voxel's nearest one.",
    }
    return {
        name: {
            "Sources": [derivatives.derivative_uri(session, name), transform],
            "Description": text,
            **about,
            **({"Type": "Lesion"} if name == "mask" else {}),
        }
        for name, text in texts.items()
    }


def change_sidecars(sources: list[str], before: str, parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The JSON sidecars of the images of what changed since another session.

    Parameters
    ----------
    sources : list of str
        BIDS URIs of both sessions' preprocessed FLAIR, the earlier first; the images are on the later one's grid.
    before : str
        The earlier session, ``ses-Y``.
    parameters : dict
        Of the comparison.

    Returns
    -------
    dict
        By the output's name in `derivatives.CHANGE_OUTPUTS`.
    """
    texts = {
        "new": "Tissue of lesions that were not there before: 1 inside.",
        "enlarging": "Tissue that lesions grew by: 1 inside.",
        "shrinking": "Tissue that lesions lost, resolved ones all of it: 1 inside.",
    }
    both = {
        "Sources": sources,
        "SpatialReference": sources[1],
        "ComparedWith": before,
        "Parameters": parameters,
    }
    described = {name: {"Description": text, "Type": "Lesion", **both} for name, text in texts.items()}
    described["map"] = {
        "Description": "How surely FLAIR changed beyond what T1w, misalignment and noise explain: positive where it became brighter; 0 outside the brain.",
        "Units": "robust standard deviations of the pair's own null",
        **both,
    }
    return described


SIDECAR_KEYS = {
    "nu": "Nu",
    "gamma": "Gamma",
    "samples": "Samples",
    "latents": "Samples",
    "seed": "Seed",
    "controls": "Controls",
    "models": "Models",
    "step_mm": "GridStep",
    "template": "Template",
}
"""What a model's description says of its One-Class SVMs, and what the anomaly map's sidecar calls it."""


def sidecar_one_class(method: Method) -> dict[str, Any]:
    """What the anomaly map's sidecar says of the One-Class SVMs: nothing if the score has none."""
    if not method.parameters.uses_network:
        return {}
    about = about_one_class(method.model, method.paradigm)
    about = about or {
        "nu": method.nu,
        "gamma": method.gamma,
        "samples": method.n_samples,
        "seed": method.random_seed,
    }
    return {"Paradigm": method.paradigm} | {
        name: about[key] for key, name in SIDECAR_KEYS.items() if key in about
    }


SCAN_SETTINGS = (
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "RepetitionTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
)
"""What the summary keeps of a raw scan's sidecars."""
LONGEST_SETTING = 100
"""Largest number of characters of a text that is kept."""


def describe_scan(scan: Path, bids_dir: Path) -> dict[str, Any]:
    """What the summary says of a raw scan: its URI, voxel sizes in mm, matrix, and settings where they are given.

    Parameters
    ----------
    scan : Path
    bids_dir : Path
        Root of the raw dataset.

    Raises
    ------
    BadImageError
        If the scan's header cannot be read.
    """
    grid = read_grid(scan)
    sizes = [round(float(size), 4) for size in grid.header.get_zooms()[:3]]
    settings = _scan_settings(scan, bids_dir)
    return {
        "file": derivatives.raw_uri(scan, bids_dir),
        "voxel_size_mm": sizes,
        "matrix": [int(length) for length in grid.shape[:3]],
        **{key: settings[key] for key in SCAN_SETTINGS if _is_setting(settings.get(key))},
    }


def _scan_settings(scan: Path, bids_dir: Path) -> dict[str, Any]:
    """Content of a scan's sidecars; nearer ones, and those with more entities, overrule, as BIDS wants it.

    What cannot be read is left out: it decides nothing.
    """
    parts = scan.name.partition(".")[0].split("_")
    directories = [parent for parent in scan.parents if parent == bids_dir or bids_dir in parent.parents]
    settings: dict[str, Any] = {}
    for directory in reversed(directories):
        sidecars = [path for path in directory.glob(f"*{parts[-1]}.json") if _applies(path, parts)]
        for path in sorted(sidecars, key=lambda one: (one.name.count("_"), one.name)):
            try:
                settings |= read_object(path)
            except (OSError, ValueError):
                continue
    return settings


def _applies(sidecar: Path, parts: list[str]) -> bool:
    """Whether a sidecar's name says nothing that the scan's, in `parts`, does not."""
    named = sidecar.name.removesuffix(".json").split("_")
    return named[-1] == parts[-1] and set(named) <= set(parts)


def _is_setting(value: object) -> bool:
    """Whether a value is a short text or a finite number."""
    if isinstance(value, str):
        return 0 < len(value) <= LONGEST_SETTING
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
