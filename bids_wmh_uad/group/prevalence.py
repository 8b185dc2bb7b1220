"""Where a cohort's lesions are: the fraction of participants with a lesion at each voxel of the template."""

from __future__ import annotations

import gzip
import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.results import result_path
from bids_wmh_uad.config import TEMPLATE, GroupConfig
from bids_wmh_uad.errors import BadDataError
from bids_wmh_uad.files import dump_json, write_atomically
from bids_wmh_uad.group.cohort import for_each
from bids_wmh_uad.imaging import scans, templates
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import read_volume

if TYPE_CHECKING:
    from collections.abc import Mapping

LOGGER = logging.getLogger("bids_wmh_uad")
SECONDS = 0.03
"""Of work on one session, roughly."""
RESOLUTION = 2
"""Of the map, mm."""
SAMPLING_MM = 0.7
"""A lesion voxel is cut into pieces no longer than this: thick slices must leave no gaps."""
PREVALENCE = f"space-{TEMPLATE}_res-{RESOLUTION}_label-WMH_desc-{{desc}}prevalence_map.nii.gz"


def write_prevalence(
    config: GroupConfig, masks: Mapping[Path, Path], summaries: Mapping[Path, Mapping[str, Any]], desc: str
) -> Path | None:
    """Write the cohort's prevalence map; sessions of one participant share that participant's weight.

    Parameters
    ----------
    config : GroupConfig
    masks : mapping
        Lesion mask of each finished session, by its summary's path.
    summaries : mapping
        Of the same sessions.
    desc : str
        Start of the map's ``desc-``; empty for the sessions' own masks.

    Returns
    -------
    Path or None
        None when no session's mask could be used.
    """
    template = templates.template("T1w", RESOLUTION)
    place = partial(lesion_voxels, affine=template.affine, shape=template.shape)
    pairs = [(mask, result_path(path, "flair_to_template")) for path, mask in masks.items()]
    found = for_each(place, pairs, config, SECONDS)
    who = [str(summaries[path]["participant_id"]) for path in masks]
    usable = Counter(
        name for name, voxels in zip(who, found, strict=True) if not isinstance(voxels, BadDataError)
    )
    prevalence = np.zeros(template.shape, dtype=np.float64)
    for name, voxels in zip(who, found, strict=True):
        if isinstance(voxels, BadDataError):
            LOGGER.warning("%s", voxels)
        else:
            prevalence.ravel()[voxels] += 1 / usable[name]
    if not usable:
        return None
    image = scans.as_image((prevalence / len(usable)).astype(np.float32), template.affine)
    path = config.output_dir / ("group_" + PREVALENCE.format(desc=desc))
    write_atomically(path, gzip.compress(image.to_bytes(), mtime=0))
    meta = {
        "Description": "Fraction of participants with a lesion at the voxel.",
        "Participants": len(usable),
        "Sessions": sum(usable.values()),
        "SpatialReference": f"{TEMPLATE}, {RESOLUTION} mm",
    }
    write_atomically(derivatives.sidecar_path(path), dump_json(meta))
    return path


def lesion_voxels(
    pair: tuple[Path, Path], affine: NDArray[Any], shape: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Voxels of the template's grid at least half of which a session's lesions fill.

    Parameters
    ----------
    pair : (Path, Path)
        Lesion mask, and its transform to the template (ITK text).
    affine : (4, 4) array
        Of the template's grid.
    shape : (int, int, int)

    Returns
    -------
    array of int
        Flat indices, each once.

    Raises
    ------
    BadDataError
        If a file cannot be used.
    """
    mask, transform = pair
    volume = read_volume(mask)
    matrix = read_transform(transform)
    pieces = [
        (np.arange(count) + 0.5) / count - 0.5 for count in np.ceil(volume.zooms / SAMPLING_MM).astype(int)
    ]
    offsets = np.stack(np.meshgrid(*pieces, indexing="ij"), axis=-1).reshape(-1, 3)
    to_grid = np.linalg.inv(affine) @ matrix @ volume.affine
    stored = volume.data.T > 0  # as it lies in memory
    voxels = np.stack(np.unravel_index(np.flatnonzero(stored), stored.shape)[::-1])
    # not rint, whose ties go to the even voxel: on aligned grids there are many
    centres = (to_grid[:3, :3] @ voxels + to_grid[:3, 3:] + 0.5).astype(np.float32)
    at = np.floor(centres[:, :, None] + (to_grid[:3, :3] @ offsets.T)[:, None].astype(np.float32))
    at = at.reshape(3, -1).astype(np.int32)
    inside = ((at >= 0) & (at < np.array(shape)[:, None])).all(axis=0)
    count = np.bincount(np.ravel_multi_index(tuple(at[:, inside]), shape))
    piece = abs(np.linalg.det(to_grid[:3, :3])) / len(offsets)  # in voxels of the template
    return np.flatnonzero(count * piece >= 0.5)
