"""The step that brings the atlas to a session's grid and finds ventricles and cortex there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from numpy.typing import NDArray

from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion import regions as core
from bids_wmh_uad.errors import NO_VENTRICLES
from bids_wmh_uad.imaging import atlas, resampling, scans
from bids_wmh_uad.interfaces.preprocess import Stage, load, load_data


def atlas_on(grid: nib.Nifti1Image, from_template: NDArray[np.float64]) -> dict[int, NDArray[np.bool_]]:
    """The atlas's regions on a session's grid, by label.

    Parameters
    ----------
    grid : Nifti1Image
    from_template : (4, 4) array
        Moves the template to the grid's space, RAS mm.
    """
    image = atlas.make_atlas()
    labels = resampling.resample(image, grid, from_template, interpolation="nearest").astype(np.uint8)
    return {label: labels == label for label in (atlas.VENTRICLES, atlas.INFRATENTORIAL, atlas.DEEP_GREY)}


def map_regions(
    tissue: core.Tissue, grid: nib.Nifti1Image, from_template: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], bool]:
    """Label ventricles, posterior fossa and cortex; whether the ventricles are the scan's own."""
    spacing = voxel_sizes(grid.affine)
    expected = atlas_on(grid, from_template)
    below = expected[atlas.INFRATENTORIAL]
    ventricles, found = core.find_ventricles(tissue, expected[atlas.VENTRICLES], spacing)
    labels = np.zeros(tissue.mask.shape, dtype=np.uint8)
    cortex = core.find_cortex(tissue, below | expected[atlas.DEEP_GREY], ventricles, spacing)
    labels[cortex] = core.CORTEX
    labels[tissue.mask & below] = core.INFRATENTORIAL
    labels[ventricles & ~below] = core.VENTRICLES
    return labels, found


class _RegionInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True, desc="grey-matter prior, [0, 1]")
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)


class _RegionOutput(TraitedSpec):
    regions = File(desc="uint8, labels of core.regions")
    warnings = traits.List(traits.Str)


class FindRegions(Stage):
    """Where ventricles, posterior fossa and cortex are."""

    input_spec = _RegionInput
    output_spec = _RegionOutput

    def _compute(self, directory: Path) -> None:
        image = load(self.inputs.flair)
        to_template = np.asarray(self.inputs.t1w_to_template) @ np.asarray(self.inputs.flair_to_t1w)
        tissue = core.Tissue(
            np.asanyarray(image.dataobj),
            load_data(self.inputs.t1w),
            load_data(self.inputs.brain_mask) > 0,
            load_data(self.inputs.gm),
        )
        labels, found = map_regions(tissue, image, np.linalg.inv(to_template))
        self._save("regions", directory, scans.as_image(labels, image.affine))
        self._results["warnings"] = [] if found else [NO_VENTRICLES]


def connect_regions(workflow: Any, preprocess: Any, segment: Any) -> None:
    """Add the node ``regions`` between preprocessing and segmentation."""
    import nipype.pipeline.engine as pe

    regions = pe.Node(FindRegions(), name="regions", mem_gb=1.0)
    workflow.connect([
        (preprocess, regions, [("outputnode.flair_z", "flair"), ("outputnode.t1w_z", "t1w"),
                               ("outputnode.brain_mask", "brain_mask"), ("outputnode.gm", "gm"),
                               ("outputnode.flair_to_t1w", "flair_to_t1w"),
                               ("outputnode.t1w_to_template", "t1w_to_template")]),
        (regions, segment, [("regions", "regions")]),
    ])  # fmt: skip
