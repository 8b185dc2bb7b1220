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
from bids_wmh_uad.core.lesion.landmarks import map_landmarks
from bids_wmh_uad.core.lesion.lobes import lobes_of
from bids_wmh_uad.errors import NO_VENTRICLES
from bids_wmh_uad.imaging import scans
from bids_wmh_uad.imaging.atlas import atlas_on, lobes_on
from bids_wmh_uad.interfaces.base import Stage, load, load_data, load_tissue


class _SegmentInput(BaseInterfaceInputSpec):
    anomaly = File(exists=True, mandatory=True)
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True, desc="grey-matter prior, [0, 1]")
    regions = File(exists=True, mandatory=True, desc="from FindRegions")
    lobes = File(exists=True, mandatory=True, desc="from FindRegions")
    evidence = File(exists=True, mandatory=True, desc="from ScoreAnomaly")
    parameters = traits.Dict(mandatory=True, desc="DetectionParameters.of_mask()")
    decision = traits.Dict(mandatory=True, desc="weights of LesionDecision")


class _SegmentOutput(TraitedSpec):
    lesions = File(desc="label image, int32, 1 = largest")
    rejected = File(desc="the same of the rejected candidates")
    probability = File(desc="float32 in [0, 1]")
    table = File(desc="one row per lesion")
    rejected_table = File(desc="one row per rejected candidate")
    measures = traits.Dict(desc="volumes, counts and the operating point")
    warnings = traits.List(traits.Any, desc="SessionWarning")


class SegmentLesions(Stage):
    """Find candidates in the anomaly map, decide which are lesions, and measure them."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.bids.tables import write_lesion_table
        from bids_wmh_uad.core.lesion.decision import LesionDecision
        from bids_wmh_uad.core.lesion.segmentation import segment
        from bids_wmh_uad.core.parameters import DetectionParameters

        image = load(self.inputs.anomaly)
        found = segment(
            np.asanyarray(image.dataobj),
            load_tissue(self.inputs),
            load_data(self.inputs.regions),
            image.affine,
            parameters=DetectionParameters(**self.inputs.parameters),
            decision=LesionDecision(**self.inputs.decision),
            evidence=load_data(self.inputs.evidence),
            lobes=load_data(self.inputs.lobes),
        )
        for name, lesions in (("lesions", found.lesions), ("rejected", found.rejected)):
            self._save(name, directory, scans.as_image(lesions.labels, image.affine))
        self._save("probability", directory, scans.as_image(found.probability, image.affine))
        self._results["table"] = write_lesion_table(directory / "lesions.tsv", found.lesions)
        self._results["rejected_table"] = write_lesion_table(directory / "rejected.tsv", found.rejected)
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
    lobes = File(desc="uint8, labels of `core.lesion.lobes.LOBES`, from 1")
    regions_table = File(desc="names of its labels")
    lobes_table = File(desc="names of its labels")
    warnings = traits.List(traits.Any, desc="SessionWarning")


class FindRegions(Stage):
    """Where ventricles, posterior fossa, cortex and lobes are."""

    input_spec = _RegionInput
    output_spec = _RegionOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.bids.tables import LABELS, write_label_table

        image = load(self.inputs.flair)
        to_template = np.asarray(self.inputs.t1w_to_template) @ np.asarray(self.inputs.flair_to_t1w)
        tissue = load_tissue(self.inputs)
        from_template = np.linalg.inv(to_template)
        labels, found = map_landmarks(tissue, atlas_on(image, from_template), voxel_sizes(image.affine))
        lobes = lobes_of(lobes_on(image, from_template), labels, tissue.mask)
        self._save("regions", directory, scans.as_image(labels, image.affine))
        self._save("lobes", directory, scans.as_image(lobes, image.affine))
        for name, names in LABELS.items():
            self._results[f"{name}_table"] = write_label_table(directory / f"{name}.tsv", names)
        self._results["warnings"] = [] if found else [NO_VENTRICLES.format()]
