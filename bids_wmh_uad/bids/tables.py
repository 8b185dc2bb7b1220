"""Tables of the output dataset: TSV files and their data dictionaries."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from bids_wmh_uad.core.lesion.lobes import LOBES
from bids_wmh_uad.core.lesion.segmentation import Lesions
from bids_wmh_uad.files import dump_json, write_atomically


def write_table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write a BIDS table (``n/a`` where a value is missing) and its data dictionary.

    Parameters
    ----------
    path : Path
        Of the ``.tsv``; the ``.json`` goes beside it.
    rows : sequence of mapping
    columns : mapping
        The columns' names, in order, and their descriptions.
    """
    lines = ["\t".join(columns), *("\t".join(_cell(row.get(name)) for name in columns) for row in rows)]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    write_atomically(path.with_suffix(".json"), dump_json(dict(columns)))


def _cell(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "n/a"
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())


LESION_COLUMNS: dict[str, dict[str, Any]] = {
    "region": {
        "Description": "Where it lies, by stated rules.",
        "Levels": {
            "periventricular": "comes within 3 mm of a ventricle",
            "deep": "none of the others",
            "juxtacortical": "comes within 2 mm of cortex, and is not periventricular",
            "infratentorial": "more than half of it lies in cerebellum or brainstem",
        },
    },
    "lobe": {
        "Description": "Lobe and hemisphere of the most of its voxels, by a registered atlas; other: nuclei, brainstem, cerebellum."
    },
    "ventricle_distance_mm": {
        "Description": "From its nearest voxel to the nearest ventricle, between voxel centres.",
        "Units": "mm",
    },
    "volume_mm3": {"Description": "Volume.", "Units": "mm^3"},
    "n_voxels": {"Description": "Number of voxels."},
    **{
        axis: {"Description": f"Centroid in world coordinates of the image, {end} positive.", "Units": "mm"}
        for axis, end in (("x", "right"), ("y", "anterior"), ("z", "superior"))
    },
    "mean_score": {"Description": "Mean of the anomaly map.", "Units": "arbitrary"},
    "max_score": {"Description": "Maximum of the anomaly map.", "Units": "arbitrary"},
    "probability": {"Description": "Of being a lesion, 0 to 1; n/a where nothing was judged."},
    "reason": {"Description": "Why it was not taken for a lesion; n/a for lesions."},
    "peak": {"Description": "Highest anomaly score, in thresholds."},
    "thickness_mm": {
        "Description": "Twice the largest distance of its voxels from its outside.",
        "Units": "mm",
    },
    "white": {"Description": "Share of white matter within 2 mm around it, 0 to 1."},
    "fluid": {
        "Description": "Share of fluid (half of the ventricles' walls), or of what lies outside the brain, within 2 mm around it, 0 to 1."
    },
    "between": {"Description": "Share of it that has ventricles on its left and on its right, 0 to 1."},
    "contrast": {
        "Description": "Its mean on FLAIR, less that of the brain within 2 mm around it.",
        "Units": "spreads of white matter",
    },
    "latent": {
        "Description": "What the network says of its brightest voxels, log-odds of being a lesion; 0 without a network."
    },
}
"""What the sidecars say of the columns of the tables of lesions and of rejected candidates, in order; ``index`` and ``name`` are BIDS'."""
TABLE_COLUMNS = ("index", "name", *LESION_COLUMNS)


CHANGE_COLUMNS: dict[str, dict[str, Any]] = {
    "index": {"Description": "Number of the lesion in this table and on the participant's page."},
    "status": {
        "Description": "What became of it, by what changed on the images; a lesion that only one mask has is stable where nothing changed.",
        "Levels": {
            "new": "not there before",
            "enlarging": "larger than before, as a whole or by more tissue that came than went; also if it was there, too faint for the earlier mask",
            "stable": "no change that noise does not explain",
            "shrinking": "smaller than before, likewise",
            "resolved": "no longer there",
            "merged": "several lesions before that are fewer now, through tissue that came",
            "split": "fewer lesions before that are several now, through tissue that went",
        },
    },
    "lesions_before": {"Description": "Its numbers in the earlier session's image of lesions; n/a: in none."},
    "lesions_after": {"Description": "Its numbers in the later session's image of lesions; n/a: in none."},
    "volume_before_mm3": {"Description": "Volume in the earlier session, by its mask.", "Units": "mm^3"},
    "volume_after_mm3": {
        "Description": "Volume in the later session, by its mask; of lesions in neither mask, of the changed tissue.",
        "Units": "mm^3",
    },
    "change_mm3": {
        "Description": "Change of the volume, measured on both images at once (boundary shift integral), not the difference of the volumes.",
        "Units": "mm^3",
    },
    "change_mm3_lower": {"Description": "Lower end of its 95 % interval.", "Units": "mm^3"},
    "change_mm3_upper": {"Description": "Upper end of its 95 % interval.", "Units": "mm^3"},
    "p_value": {"Description": "Of what the status says, before the correction for many lesions."},
    "peak": {
        "Description": "Score in it that is farthest from 0, in robust standard deviations of the null.",
        "Units": "arbitrary",
    },
    **{
        axis: {
            "Description": f"Centroid in world coordinates of the later session's FLAIR, {end} positive.",
            "Units": "mm",
        }
        for axis, end in (("x", "right"), ("y", "anterior"), ("z", "superior"))
    },
}
"""Columns of the table of lesions that were followed from one session to another."""


LABELS = {"regions": ("ventricles", "infratentorial", "cortex"), "lobes": LOBES}
"""Names of the labels, from 1, of the images that have the same ones in every session."""


def write_label_table(path: Path, labels: Sequence[str]) -> str:
    """Write the names of an image's labels, from 1: a BIDS look-up table.

    Returns
    -------
    str
        The absolute path of the file.
    """
    lines = ["index\tname", *(f"{number}\t{name}" for number, name in enumerate(labels, start=1))]
    path.write_text("\n".join(lines) + "\n")
    return str(path.absolute())


def lesion_rows(lesions: Lesions) -> list[dict[str, Any]]:
    """What is known of lesions or rejected candidates, one row each: values of :data:`TABLE_COLUMNS`."""
    judged = zip_longest(lesions.candidates, lesions.probabilities, lesions.lobes, lesions.reasons)
    rows = []
    for lesion, place, known_of in zip_longest(lesions.rows, lesions.places, judged):
        candidate, probability, lobe, reason = known_of or (None, None, None, None)
        known = asdict(lesion) | asdict(place) | (asdict(candidate) if candidate else {})
        known |= {"lobe": lobe, "probability": probability, "reason": reason}
        known |= {"name": f"lesion-{lesion.index}", "volume_mm3": lesion.volume_mm3}
        rows.append({name: _number(known.get(name)) for name in TABLE_COLUMNS})
    return rows


def write_lesion_table(path: Path, lesions: Lesions) -> str:
    """Write the BIDS look-up table of lesions or rejected candidates: one row each, ``n/a`` where nothing was judged.

    Returns
    -------
    str
        The absolute path of the file.
    """
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, TABLE_COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lesion_rows(lesions))
    return str(path.absolute())


def _number(value: Any) -> Any:
    """Four decimals; ``n/a`` for what is not there, or not finite."""
    if value is None or value == "" or value in (np.inf, -np.inf):
        return "n/a"
    return round(value, 4) if isinstance(value, float) else value
