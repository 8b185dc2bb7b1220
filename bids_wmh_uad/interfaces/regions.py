"""The step that brings the atlas to a session's grid and finds ventricles and cortex there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion.landmarks import Tissue, map_landmarks
from bids_wmh_uad.errors import NO_VENTRICLES
from bids_wmh_uad.imaging import scans
from bids_wmh_uad.imaging.atlas import atlas_on
from bids_wmh_uad.interfaces.base import Stage, load, load_data


class _RegionInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True, desc="grey-matter prior, [0, 1]")
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)


class _RegionOutput(TraitedSpec):
    regions = File(desc="uint8, labels of `core.lesion.landmarks.Landmark`")
    warnings = traits.List(traits.Any, desc="SessionWarning")


class FindRegions(Stage):
    """Where ventricles, posterior fossa and cortex are."""

    input_spec = _RegionInput
    output_spec = _RegionOutput

    def _compute(self, directory: Path) -> None:
        image = load(self.inputs.flair)
        to_template = np.asarray(self.inputs.t1w_to_template) @ np.asarray(self.inputs.flair_to_t1w)
        tissue = Tissue(
            np.asanyarray(image.dataobj),
            load_data(self.inputs.t1w),
            load_data(self.inputs.brain_mask) > 0,
            load_data(self.inputs.gm),
        )
        atlas = atlas_on(image, np.linalg.inv(to_template))
        labels, found = map_landmarks(tissue, atlas, voxel_sizes(image.affine))
        self._save("regions", directory, scans.as_image(labels, image.affine))
        self._results["warnings"] = [] if found else [NO_VENTRICLES.format()]
