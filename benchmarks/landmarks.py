"""Make the file of landmarks that the package ships: ventricles, deep nuclei and posterior fossa of the template.

    python benchmarks/landmarks.py bids_wmh_uad/data/landmarks

Derived from the template's tissue maps and the labelled points of Seitzman et al. (NeuroImage 2020), both of which
nilearn holds offline. Printed: each one's volume.
"""

from __future__ import annotations

import gzip
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from bids_wmh_uad.core.image.template import ATLAS_LEVEL, template_brain
from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.files import write_atomically
from bids_wmh_uad.imaging import templates
from bids_wmh_uad.imaging.scans import as_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CSF_COST = 60.0
"""Factor by which a millimetre through fluid is longer than through tissue, growing
with the square of the fluid's fraction: paths keep to the tissue."""
MIDBRAIN = (-26.0, -2.0, -12.0, -14.0)
"""Plane on top of the midbrain: y and z (mm) of the posterior commissure and of the mamillary bodies."""
VENTRICLE_BOX = ((-42.0, 42.0), (-62.0, 40.0), (-14.0, 36.0))
"""Box around the lateral and third ventricles, mm in x, y and z."""
VENTRICLE_DEPTH_MM = 20.0
"""Depth of the ventricles below the brain's surface, mm: sulci and cisterns are nearer to it."""
DEEP_CENTRE, DEEP_RADII = (18.0, -6.0, 5.0), (17.0, 30.0, 16.0)
"""Ellipsoid around the deep nuclei of a hemisphere, mm; its x is mirrored."""


def derive() -> nib.Nifti1Image:
    """The atlas: uint8 labels of `Landmark` on the template at 2 mm."""
    maps = [templates.template(name, resolution=2) for name in ("GM", "WM", "T1w")]
    affine = maps[0].affine
    grey, white, head = (np.asanyarray(image.dataobj, dtype=np.float32) for image in maps)
    brain = template_brain(head, ATLAS_LEVEL, relative=False)
    tissue = np.clip(grey + white, 0, 1)
    world = np.stack(np.meshgrid(*map(np.arange, brain.shape), indexing="ij"), axis=-1) @ affine[:3, :3].T
    world += affine[:3, 3]
    labels = np.zeros(brain.shape, dtype=np.uint8)
    labels[_infratentorial(tissue, brain, world, affine)] = Landmark.INFRATENTORIAL
    free = brain & (labels == 0)
    labels[free & _deep_grey(grey, world)] = Landmark.DEEP_GREY
    labels[free & _ventricles(tissue, brain, world)] = Landmark.VENTRICLES
    return as_image(labels, affine)


def _ventricles(
    tissue: NDArray[np.float32], brain: NDArray[np.bool_], world: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Fluid in the middle of the brain, far below its surface, without the cisterns behind the midbrain."""
    inside = ndimage.distance_transform_edt(brain, sampling=2.0) > VENTRICLE_DEPTH_MM
    for axis, (low, high) in enumerate(VENTRICLE_BOX):
        inside &= (world[..., axis] > low) & (world[..., axis] < high)
    x, y, z = np.abs(world[..., 0]), world[..., 1], world[..., 2]
    cisterns = (y < -26) & (x < 16) & (z < 6) | (y < -20) & (x < 20) & (z < -4) | (y < -34) & (x < 9)
    labels, count = ndimage.label((tissue < 0.5) & inside & ~cisterns)
    sizes = ndimage.sum_labels(labels > 0, labels, np.arange(1, count + 1))
    large: NDArray[np.bool_] = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.2 * sizes.max()))
    return large


def _deep_grey(grey: NDArray[np.float32], world: NDArray[np.float64]) -> NDArray[np.bool_]:
    folded = np.concatenate([np.abs(world[..., :1]), world[..., 1:]], axis=-1)
    inside = (((folded - DEEP_CENTRE) / DEEP_RADII) ** 2).sum(axis=-1) < 1
    nuclei: NDArray[np.bool_] = inside & (grey > 0.25)
    return nuclei


def _infratentorial(
    tissue: NDArray[np.float32],
    brain: NDArray[np.bool_],
    world: NDArray[np.float64],
    affine: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """What lies closer, through tissue, to the cerebellum's points and the brainstem than to the cerebrum's.

    Paths through fluid are long, so that the border follows the tentorium's cistern; the brainstem
    is cut at the plane through posterior commissure and mamillary bodies.
    """
    from nilearn import datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the table's type
        atlas = datasets.fetch_coords_seitzman_2018()
    points = np.array([[row.x, row.y, row.z] for row in atlas.rois.itertuples()])
    below = np.asarray(atlas.regions) == "cerebellum"
    x, y, z = np.moveaxis(world, -1, 0)
    stem = (np.abs(x) < 4) & (np.abs(y + 28) < 4) & (z > -40) & (z < -25)
    y1, z1, y2, z2 = MIDBRAIN
    under = z < z1 + (y - y1) * (z2 - z1) / (y2 - y1)
    passage = (np.abs(x) < 22) & (y > -45) & (y < -8)
    seeds = [_balls(points[below], affine, brain) | (stem & brain), _balls(points[~below], affine, brain)]
    distances = _geodesic(1 + CSF_COST * (1 - tissue) ** 2, brain, np.where(passage, under, 2), seeds)
    nearer: NDArray[np.bool_] = brain & (distances[0] < distances[1])
    return nearer


def _balls(
    points: NDArray[np.float64], affine: NDArray[np.float64], brain: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    index = np.rint((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    centres = np.zeros(brain.shape, dtype=bool)
    centres[tuple(index.T)] = True
    grown: NDArray[np.bool_] = ndimage.binary_dilation(centres, np.ones((3, 3, 3))) & brain
    return grown


def _geodesic(
    cost: NDArray[np.float32],
    brain: NDArray[np.bool_],
    sides: NDArray[Any],
    seeds: Sequence[NDArray[np.bool_]],
) -> list[NDArray[np.float64]]:
    """Length of the cheapest path from each set of seeds; none crosses between sides 0 and 1."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    number = np.full(brain.shape, -1)
    number[brain] = np.arange(np.count_nonzero(brain))
    ends, lengths = [], []
    for axis in range(3):
        lower, upper = (
            tuple(part if other == axis else slice(None) for other in range(3))
            for part in (slice(None, -1), slice(1, None))
        )
        crossing = (sides[lower] != sides[upper]) & (sides[lower] < 2) & (sides[upper] < 2)
        joined = brain[lower] & brain[upper] & ~crossing
        ends.append(np.stack([number[lower][joined], number[upper][joined]]))
        lengths.append(((cost[lower] + cost[upper]) / 2)[joined])
    graph = coo_matrix(
        (np.concatenate(lengths), tuple(np.concatenate(ends, axis=1))), shape=(number.max() + 1,) * 2
    ).tocsr()
    distances = []
    for seed in seeds:
        distance = np.full(brain.shape, np.inf)
        distance[brain] = dijkstra(graph, directed=False, indices=number[seed], min_only=True)
        distances.append(distance)
    return distances


def main(place: Path) -> None:
    """Write the file."""
    atlas = derive()
    for label in (Landmark.VENTRICLES, Landmark.INFRATENTORIAL, Landmark.DEEP_GREY):
        volume = np.count_nonzero(np.asanyarray(atlas.dataobj) == label) * 0.008
        print(f"{label.name.lower():16s} {volume:7.1f} mL")
    write_atomically(place / "landmarks.nii.gz", gzip.compress(atlas.to_bytes(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
