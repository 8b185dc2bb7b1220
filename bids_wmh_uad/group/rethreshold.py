"""New lesion masks at another threshold, from the anomaly maps that are there: nothing is scored again."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import beside, failed_summary, identity, result_path
from bids_wmh_uad.bids.tables import lesion_rows
from bids_wmh_uad.config import GroupConfig
from bids_wmh_uad.core.image.volume import check_same_grid
from bids_wmh_uad.core.lesion.segmentation import MASK_WARNINGS, segment
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import BadDataError, SessionWarning
from bids_wmh_uad.files import dump_json, write_atomically
from bids_wmh_uad.group.cohort import for_each
from bids_wmh_uad.group.scans import read_decision, read_lobes, read_parameters, read_tissue
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging.scans import read_volume

LOGGER = logging.getLogger("bids_wmh_uad")
SECONDS = 1.0
"""Of work on one session, roughly."""
MASK = "space-FLAIR_label-WMH_desc-{desc}_mask.nii.gz"


def threshold_label(rule: str, accept: float = DetectionParameters.accept) -> str:
    """The ``desc-`` of a threshold rule, and of another ``--accept`` than the default: letters and digits only.

    ``tail=2.5`` is ``tail2p5``, with ``--accept 0.7`` ``tail2p5accept0p7``.

    Raises
    ------
    UsageError
        `errors.BAD_VALUE`, when the rule cannot be read.
    """
    name, parameter = DetectionParameters(threshold=rule).rule
    label = (
        name + f"{parameter:.6g}" + (f"accept{accept:.6g}" if accept != DetectionParameters.accept else "")
    )
    return label.replace("-", "m").replace(".", "p").replace("+", "")


def rethreshold(
    config: GroupConfig, rule: str, summaries: Mapping[Path, Mapping[str, Any]]
) -> tuple[dict[Path, dict[str, Any]], dict[Path, Path], dict[Path, list[dict[str, Any]]], int]:
    """Write every finished session's mask at another threshold, beside its own.

    Parameters
    ----------
    config : GroupConfig
        ``--min-lesion-volume`` and ``--nprocs``.
    rule : str
        ``NAME[=VALUE]``, see `core.lesion.threshold.operating_point`.
    summaries : mapping
        Of all sessions, by path.

    Returns
    -------
    summaries : dict
        With the new volumes, counts and thresholds.
    masks : dict
        The new masks.
    lesions : dict
        The new lesions: rows of their tables.
    failures : int
        Sessions whose results could not be used; they are said, and are failed in the new table.
    """
    paths = [path for path, summary in summaries.items() if summary.get("status") == "done"]
    work = partial(_rethreshold, parameters=replace(config.method.parameters, threshold=rule))
    new, masks, lesions, failures = {path: dict(summary) for path, summary in summaries.items()}, {}, {}, 0
    for path, found in zip(paths, for_each(work, paths, config, SECONDS), strict=True):
        if isinstance(found, BadDataError):
            failures += 1
            LOGGER.error("%s", found)
            new[path] = failed_summary(*identity(new[path]), found)
        else:
            masks[path], measures, lesions[path], warnings = found
            kept = [entry for entry in new[path].get("warnings", []) if not _is_of_mask(entry)]
            new[path] |= measures | {"warnings": [*kept, *map(asdict, warnings)]}
            new[path]["wmh_percent_icv"] = _percent(measures["wmh_volume_ml"], new[path].get("icv_ml"))
    return new, masks, lesions, failures


def _is_of_mask(entry: object) -> bool:
    """Whether a summary's warning is about its mask; one that an older version wrote as a text does not tell."""
    return isinstance(entry, Mapping) and entry.get("code") in MASK_WARNINGS


def _percent(volume_ml: float, icv_ml: float | None) -> float | None:
    return round(100 * volume_ml / icv_ml, 4) if icv_ml else None


def _rethreshold(
    summary: Path, parameters: DetectionParameters
) -> tuple[Path, dict[str, Any], list[dict[str, Any]], tuple[SessionWarning, ...]]:
    """One session's new mask, its measures, its lesions, and the warnings that it brings."""
    paths = {name: result_path(summary, name) for name in ("anomaly", "brain", "regions", "evidence")}
    anomaly, brain, regions, evidence = (read_volume(path) for path in paths.values())
    for other, name in ((brain, "brain"), (regions, "regions"), (evidence, "evidence")):
        check_same_grid(anomaly, other, (str(paths["anomaly"]), str(paths[name])))
    parameters = replace(parameters, score=read_parameters(summary).score)
    tissue, _ = read_tissue(summary)
    lobes = read_lobes(summary, regions.data, tissue.mask, anomaly.affine)
    found = segment(
        anomaly.data, tissue, regions.data, anomaly.affine,
        parameters=parameters, decision=read_decision(summary), evidence=evidence.data, lobes=lobes,
    )  # fmt: skip
    path = beside(summary, MASK.format(desc=threshold_label(parameters.threshold, parameters.accept)))
    _write_mask(path, found.lesions.labels > 0, paths["anomaly"], found.measures)
    return path, found.measures, lesion_rows(found.lesions), found.warnings


def _write_mask(path: Path, mask: NDArray[np.bool_], anomaly: Path, measures: Mapping[str, Any]) -> None:
    """The mask with the header of the anomaly map, and its sidecar, from that of the session's own mask."""
    import nibabel as nib

    like = read_grid(anomaly)
    image = nib.Nifti1Image(mask.astype(np.uint8), like.affine, like.header, dtype=np.uint8)
    write_atomically(path, gzip.compress(image.to_bytes(), mtime=0))
    own = anomaly.with_name(anomaly.name.replace(derivatives.OUTPUTS["anomaly"], derivatives.OUTPUTS["mask"]))
    meta = derivatives.read_summary(derivatives.sidecar_path(own))
    meta |= {
        "Threshold": measures["threshold"],
        "MinimumLesionVolume": measures["min_lesion_volume_mm3"],
    }
    write_atomically(derivatives.sidecar_path(path), dump_json(meta))
