"""A mask and a map against a reference, with the measures of the group level."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.core.image.volume import Volume, check_same_grid
from bids_wmh_uad.errors import NOT_AN_IMAGE, UsageError

if TYPE_CHECKING:
    from os import PathLike
    from typing import TypeAlias

    ImageLike: TypeAlias = "str | PathLike[str] | Any"  # a path or a nibabel image

LOGGER = logging.getLogger("bids_wmh_uad")
"""The program's log."""


def evaluate(
    reference: ImageLike,
    mask: ImageLike,
    anomaly_map: ImageLike | None = None,
    brain: ImageLike | None = None,
) -> dict[str, float]:
    """Compare a lesion mask, and a map if there is one, with a reference mask: the measures of ``group_evaluation.tsv``.

    Parameters
    ----------
    reference : str, path or nibabel image
        1 is lesion; 2, other pathology, is left out, as in the WMH segmentation challenge. A single other value is lesion,
        and so are probabilities from 0.5 on.
    mask : str, path or nibabel image
        Everything above 0 is lesion.
    anomaly_map : str, path or nibabel image, optional
        Larger = more abnormal: adds the measures over all thresholds.
    brain : str, path or nibabel image, optional
        Only what is above 0 in it counts, as at the group level; without it every voxel does. Give it with
        `anomaly_map`: AUROC and AUPRO depend on how much is compared that cannot be a lesion.

    Returns
    -------
    dict
        ``reference_volume_ml``, ``wmh_volume_ml`` (mL), ``dice``, ``h95_mm`` (mm), ``avd_percent`` (percent),
        ``lesion_recall``, ``lesion_precision``, ``lesion_f1``; with a map also ``ap``, ``auroc``, ``auroc30``,
        ``aupro``, ``aupro30``, ``best_dice`` and ``best_threshold``. NaN where a measure is not defined, such as the
        distance from an empty mask.

    Raises
    ------
    UsageError
        If something is neither a path nor an image.
    BadImageError
        If a file cannot be read.
    GridMismatchError
        If the images are not on one grid; in the reference's affine less than a tenth of a voxel is rounding.
    BadDataError
        If the reference's values are those of no mask.

    See Also
    --------
    detect : Makes mask and map.

    Examples
    --------
    >>> import nibabel as nib, numpy as np
    >>> from bids_wmh_uad import evaluate
    >>> truth = np.zeros((8, 8, 4), np.uint8)
    >>> truth[2:4, 2:4, 1:3] = 1
    >>> found = truth.copy()
    >>> found[2, 2, 1], found[6, 6, 2] = 0, 1
    >>> images = [nib.Nifti1Image(data, np.diag([1, 1, 3, 1])) for data in (truth, found)]
    >>> measures = evaluate(*images)
    >>> measures["dice"], measures["lesion_recall"], measures["lesion_precision"]
    (0.875, 1.0, 0.5)
    """
    import numpy as np

    from bids_wmh_uad.core.evaluation.measures import map_measures, mask_measures
    from bids_wmh_uad.core.evaluation.overlap import Components
    from bids_wmh_uad.core.evaluation.ranking import Ranking
    from bids_wmh_uad.imaging.masks import LESION, OTHER_PATHOLOGY, reference_labels

    result, result_name = _read("mask", mask)
    truth, truth_name = _read("reference", reference)
    labels, notes = reference_labels(truth, Path(truth_name), result, Path(result_name), remedy="")
    for note in notes:
        LOGGER.warning("%s", note)
    inside = labels != OTHER_PATHOLOGY
    if brain is not None:
        inside &= _on_grid("brain", brain, result, result_name) > 0
    found = (result.data > 0) & inside
    lesions = Components.of((labels == LESION) & inside, found)
    measures = mask_measures(found, lesions, result.affine)
    if anomaly_map is not None:
        scores = _on_grid("anomaly_map", anomaly_map, result, result_name)
        measures |= map_measures(Ranking.of(np.asarray(scores)[inside], lesions.labels[inside]))
    return measures


def _on_grid(name: str, image: ImageLike, result: Volume, result_name: str) -> Any:
    """The voxels of an image, which must lie on the mask's grid."""
    volume, own_name = _read(name, image)
    check_same_grid(result, volume, (result_name, own_name))
    return volume.data


def _read(name: str, image: ImageLike) -> tuple[Volume, str]:
    """An image's voxels and affine, and what messages call it."""
    import nibabel as nib
    import numpy as np

    from bids_wmh_uad.imaging.scans import read_volume

    if isinstance(image, str | os.PathLike):
        return read_volume(Path(image).expanduser()), os.fspath(image)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise UsageError(NOT_AN_IMAGE.format(name=name, kind=type(image).__name__))
    squeezed = nib.funcs.squeeze_image(image)
    return Volume(np.asanyarray(squeezed.dataobj), squeezed.affine), image.get_filename() or name
