"""Lesions as 26-connected components: labels, table, volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.volume import bounding_box

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Lesion:
    """One row of the lesion table.

    Parameters
    ----------
    index : int
        Label in the segmentation, from 1, largest first.
    volume_mm3 : float
    n_voxels : int
    x, y, z : float
        Centroid in world coordinates of the image's affine, mm.
    mean_score, max_score : float
        Of the anomaly map inside the lesion.
    """

    index: int
    volume_mm3: float
    n_voxels: int
    x: float
    y: float
    z: float
    mean_score: float
    max_score: float


def voxel_volume(affine: NDArray[Any]) -> float:
    """Volume of a voxel in mm3: the absolute determinant of the affine's linear part."""
    return float(abs(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3])))


def connected_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the 26-connected components of a mask in the order of first occurrence, from 1.

    Returns
    -------
    (X, Y, Z) int32 array
    int
        How many there are.
    """
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    count: int = ndimage.label(mask[box], structure=np.ones((3, 3, 3)), output=labels[box])
    return labels, count


def label_lesions(mask: NDArray[Any], affine: NDArray[Any], min_volume_mm3: float = 0.0) -> NDArray[np.int32]:
    """Label 26-connected components, largest first, and drop the small ones.

    Parameters
    ----------
    mask : (X, Y, Z) array
        Anything that converts to bool.
    affine : (4, 4) array
        Voxel to world (mm).
    min_volume_mm3 : float
        Smallest component kept.

    Returns
    -------
    (X, Y, Z) int32 array: 0 = none, 1 = largest; ties in the order of first occurrence.
    """
    labels, count = connected_components(np.asarray(mask, dtype=bool))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    # Half a part in a billion forgives the rounding of determinants.
    kept = order[sizes[order] * voxel_volume(affine) >= max(min_volume_mm3, 0.0) * (1 - 5e-10)]
    kept = kept[sizes[kept] > 0]
    new = np.zeros(count + 1, dtype=np.int32)
    new[kept] = np.arange(1, kept.size + 1, dtype=np.int32)
    ranked: NDArray[np.int32] = new[labels]
    return ranked


def lesion_table(labels: NDArray[np.int32], score: NDArray[Any], affine: NDArray[Any]) -> list[Lesion]:
    """Measure each lesion.

    Parameters
    ----------
    labels : (X, Y, Z) int32 array
        From `label_lesions`.
    score : (X, Y, Z) array
        Anomaly map.
    affine : (4, 4) array
        Voxel to world (mm).

    Returns
    -------
    list of Lesion, in the order of the labels; empty when there is none.
    """
    inside = np.nonzero(labels)
    member = labels[inside]
    count = int(member.max()) if member.size else 0
    if count == 0:
        return []
    values = np.asarray(score, dtype=np.float64)[inside]
    sizes = np.bincount(member, minlength=count + 1)[1:]
    present = np.maximum(sizes, 1)
    centre = np.stack([np.bincount(member, axis, count + 1)[1:] / present for axis in inside], axis=1)
    world = centre @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]
    means = np.bincount(member, values, count + 1)[1:] / present
    highest = ndimage.maximum(values, member, np.arange(1, count + 1))
    volume = voxel_volume(affine)
    rows = []
    for i in np.flatnonzero(sizes):
        x, y, z = world[i].tolist()
        size, mean, peak = int(sizes[i]), float(means[i]), float(highest[i])
        rows.append(Lesion(int(i) + 1, size * volume, size, x, y, z, mean, peak))
    return rows


def total_volume_ml(labels: NDArray[Any], affine: NDArray[Any]) -> float:
    """Volume of all labelled voxels, millilitres."""
    return int(np.count_nonzero(labels)) * voxel_volume(affine) / 1000.0
