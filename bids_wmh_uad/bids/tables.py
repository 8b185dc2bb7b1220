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


TABLE_COLUMNS = (
    "index", "name", "region", "ventricle_distance_mm", "volume_mm3", "n_voxels", "x", "y", "z", "mean_score", "max_score",
    "probability", "reason", "peak", "thickness_mm", "white", "fluid", "between", "latent",
)  # fmt: skip


def write_lesion_table(path: Path, lesions: Lesions) -> str:
    """Write the BIDS look-up table of lesions or rejected candidates: one row each, ``n/a`` where nothing was judged.

    Returns
    -------
    str
        The absolute path of the file.
    """
    columns = (lesions.rows, lesions.places, lesions.candidates, lesions.probabilities, lesions.reasons)
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, TABLE_COLUMNS, "n/a", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for lesion, place, candidate, probability, reason in zip_longest(*columns):
            known = asdict(lesion) | asdict(place) | (asdict(candidate) if candidate else {})
            known |= {"volume_mm3": lesion.volume_mm3, "probability": probability, "reason": reason}
            writer.writerow(
                {"name": f"lesion-{lesion.index}", **{key: _number(value) for key, value in known.items()}}
            )
    return str(path.absolute())


def _number(value: Any) -> Any:
    """Four decimals; ``n/a`` for what is not there, or not finite."""
    if value is None or value == "" or value in (np.inf, -np.inf):
        return "n/a"
    return round(value, 4) if isinstance(value, float) else value
