"""The node that makes lesions of an anomaly map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)

from bids_wmh_uad.imaging import scans, templates
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
