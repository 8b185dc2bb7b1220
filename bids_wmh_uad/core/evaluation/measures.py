"""The measures of a lesion mask, and of a map over all thresholds, by their names in ``group_evaluation.tsv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.core.evaluation.overlap import Components, LesionDetection, avd_percent, dice, h95_mm
from bids_wmh_uad.core.image.volume import Orientation, voxel_sizes
from bids_wmh_uad.core.lesion.components import voxel_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.evaluation.ranking import Ranking

LOW_FPR = 0.3
"""Where the partial areas end."""


def mask_measures(found: NDArray[np.bool_], lesions: Components, affine: NDArray[Any]) -> dict[str, float]:
    """Volumes, and the WMH segmentation challenge's measures of a mask.

    Parameters
    ----------
    found : (X, Y, Z) bool array
        The mask, in any order of storage.
    lesions : Components
        Of the reference; touched where the mask touches them.
    affine : (4, 4) array
        Voxel to world (mm).

    Returns
    -------
    dict
        ``reference_volume_ml``, ``wmh_volume_ml``, ``dice``, ``h95_mm``, ``avd_percent``, ``lesion_recall``,
        ``lesion_precision``, ``lesion_f1``; NaN where one is not defined.
    """
    voxel_ml = voxel_volume(affine) / 1000
    axial = Orientation.from_affine(affine)  # the distance looks at boundaries in axial slices
    lesion = lesions.labels > 0
    detection = LesionDetection.of(lesions, Components.of(found, lesion))
    return {
        "reference_volume_ml": float(lesion.sum()) * voxel_ml,
        "wmh_volume_ml": float(found.sum()) * voxel_ml,
        "dice": dice(found, lesion),
        "h95_mm": h95_mm(axial.forward(found), axial.forward(lesion), voxel_sizes(affine)[list(axial.axes)]),
        "avd_percent": avd_percent(found, lesion),
        "lesion_recall": detection.recall,
        "lesion_precision": detection.precision,
        "lesion_f1": detection.f1,
    }


def map_measures(ranking: Ranking) -> dict[str, float]:
    """The measures of a map over all thresholds.

    Returns
    -------
    dict
        ``ap``, ``auroc``, ``auroc30``, ``aupro``, ``aupro30``, ``best_dice``, ``best_threshold``.
    """
    best, at = ranking.best_dice()
    return {
        "ap": ranking.average_precision(),
        "auroc": ranking.auroc(),
        "auroc30": ranking.auroc(LOW_FPR),
        "aupro": ranking.aupro(),
        "aupro30": ranking.aupro(LOW_FPR),
        "best_dice": best,
        "best_threshold": at,
    }
