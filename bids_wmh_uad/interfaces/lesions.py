"""The nodes that find a scan's landmarks, and make lesions of its anomaly map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)

from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion.landmarks import Tissue, map_landmarks
from bids_wmh_uad.errors import NO_VENTRICLES
from bids_wmh_uad.imaging import scans, templates
from bids_wmh_uad.imaging.atlas import atlas_on
from bids_wmh_uad.interfaces.base import Stage, load, load_data


class _SegmentInput(BaseInterfaceInputSpec):
    anomaly = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    regions = File(exists=True, mandatory=True, desc="from FindRegions")
    parameters = traits.Dict(mandatory=True, desc="DetectionParameters.of_mask()")


class _SegmentOutput(TraitedSpec):
    lesions = File(desc="label image, int32, 1 = largest")
    probability = File(desc="float32 in [0, 1], 0.5 at the threshold")
    table = File(desc="one row per lesion")
    measures = traits.Dict(desc="volumes, counts and the operating point")
    warnings = traits.List(traits.Any, desc="SessionWarning")


class SegmentLesions(Stage):
    """Threshold the anomaly map, label the lesions and measure them."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.bids.tables import write_lesion_table
        from bids_wmh_uad.core.lesion.segmentation import segment
        from bids_wmh_uad.core.parameters import DetectionParameters

        image = load(self.inputs.anomaly)
        found = segment(
            np.asanyarray(image.dataobj),
            load_data(self.inputs.brain_mask) > 0,
            load_data(self.inputs.gm) > templates.GM_LIKELY,
            image.affine,
            parameters=DetectionParameters(**self.inputs.parameters),
            regions=load_data(self.inputs.regions),
        )
        self._save("lesions", directory, scans.as_image(found.labels, image.affine))
        self._save("probability", directory, scans.as_image(found.probability, image.affine))
        self._results["table"] = write_lesion_table(directory / "lesions.tsv", found.lesions, found.places)
        self._results |= {"measures": found.measures, "warnings": list(found.warnings)}


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
