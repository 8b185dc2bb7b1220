"""Which lobe lesions lie in, by labels that were carried from the cortex into the white matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.core.lesion.landmarks import Landmark

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOBES = tuple(
    f"{side}_{lobe}"
    for lobe in ("frontal", "parietal", "temporal", "occipital", "cingulate", "insula")
    for side in ("left", "right")
)
"""Names of the lobes, label 1 first; the cingulate gyrus and the insula are told apart from the four lobes."""
OTHER = "other"
"""What is no lobe: deep nuclei, brainstem, cerebellum."""


def lobes_of(
    atlas: NDArray[np.integer[Any]], landmarks: NDArray[np.integer[Any]], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """A session's lobes: the registered atlas's, in the brain, without its ventricles and posterior fossa.

    Parameters
    ----------
    atlas : (X, Y, Z) integer array
        Labels of `LOBES`, from 1, on the session's grid; 0 = none.
    landmarks : (X, Y, Z) integer array
        From `landmarks.map_landmarks`.
    mask : (X, Y, Z) bool array
        Brain.

    Returns
    -------
    (X, Y, Z) uint8 array
    """
    elsewhere = (landmarks == Landmark.VENTRICLES) | (landmarks == Landmark.INFRATENTORIAL)
    return np.where(mask & ~elsewhere, atlas, 0).astype(np.uint8)


def lobes_of_lesions(
    labels: NDArray[np.int32], lobes: NDArray[np.integer[Any]]
) -> tuple[list[str], dict[str, int]]:
    """The lobe of each lesion, that of the most of its voxels, and the lesion voxels in each lobe.

    Parameters
    ----------
    labels : (X, Y, Z) int32 array
        Lesions 1..n.
    lobes : (X, Y, Z) integer array
        From `lobes_of`.

    Returns
    -------
    names : list of str
        In the order of the labels; of lobes with as many voxels the first, `OTHER` last.
    voxels : dict
        Number in each of `LOBES` and in `OTHER`: together, all of the lesions'.
    """
    inside = np.nonzero(labels)
    member = labels[inside]
    count = int(member.max()) if member.size else 0
    columns = (*LOBES, OTHER)
    column = np.where(lobes[inside] > 0, lobes[inside].astype(np.int64) - 1, len(LOBES))
    table = np.zeros((count + 1, len(columns)), dtype=np.int64)
    np.add.at(table, (member, column), 1)
    names = [columns[int(most)] for most in table[1:].argmax(axis=1)]
    return names, dict(zip(columns, table.sum(axis=0).tolist(), strict=True))
