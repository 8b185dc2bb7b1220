"""The node that scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)

from bids_wmh_uad.core.device import configure_torch, resolve_device
from bids_wmh_uad.errors import BadDataError
from bids_wmh_uad.imaging import scans
from bids_wmh_uad.interfaces.base import Stage, load, load_tissue

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.parameters import DetectionParameters
    from bids_wmh_uad.core.score.scan import Scan


class _ScoreInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True, desc="grey-matter prior, [0, 1]")
    model = traits.Str(mandatory=True, desc="name or directory", nohash=True)
    model_digest = traits.Str(
        mandatory=True, desc="makes the cache follow the model's content; empty if none is used"
    )
    paradigm = traits.Str(mandatory=True)
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)
    parameters = traits.Dict(mandatory=True, desc="DetectionParameters.of_score()")
    seed = traits.Int(mandatory=True)
    device = traits.Str("cpu", usedefault=True, nohash=True)
    threads = traits.Int(1, usedefault=True, nohash=True)


class _ScoreOutput(TraitedSpec):
    anomaly = File(desc="anomaly map, float32, larger = more abnormal")
    evidence = File(desc="what the latents say of being a lesion, float32, log-odds; 0 without a network")
    brightness = File(desc="the score 'brightness', float32; 0 where it cannot be computed")
    device = traits.Str(desc="where it was computed in the end")
    warnings = traits.List(traits.Any, desc="SessionWarning")
    uncovered = traits.Float(desc="percent of the brain without a model")


class ScoreAnomaly(Stage):
    """Score every voxel: its brightness, its patch by a One-Class SVM (the patient's own, or of controls), or both."""

    input_spec = _ScoreInput
    output_spec = _ScoreOutput

    def _compute(self, directory: Path) -> None:
        from dataclasses import replace

        from bids_wmh_uad.core.image.volume import WorkingGrid
        from bids_wmh_uad.core.parameters import DetectionParameters
        from bids_wmh_uad.core.score.anomaly import anomaly_map, uncovered_warnings
        from bids_wmh_uad.core.score.scan import Scan
        from bids_wmh_uad.core.svm.voxelwise import model_numbers
        from bids_wmh_uad.models import load_decision, load_model, load_normality

        configure_torch(self.inputs.threads)
        image = load(self.inputs.flair)
        grid = WorkingGrid.from_affine(image.shape, image.affine)
        params = DetectionParameters(**self.inputs.parameters)
        tissue = load_tissue(self.inputs)
        scan, mask = Scan.on_grid(grid, tissue), tissue.mask
        del tissue  # scoring needs the memory
        to_template = np.asarray(self.inputs.t1w_to_template) @ np.asarray(self.inputs.flair_to_t1w)
        model = one_class = direction = None
        if params.uses_network:
            model, _ = load_model(self.inputs.model)
            direction = np.array(load_decision(self.inputs.model, model.latent_size).latent, dtype=np.float32)
            one_class = load_normality(self.inputs.model, self.inputs.paradigm)
        voxels = model_numbers(one_class, scan.mask, to_template @ grid.affine)
        scan = replace(scan, voxels=voxels)
        found = anomaly_map(
            model, scan, params, np.random.default_rng(self.inputs.seed),
            one_class=one_class, device=resolve_device(self.inputs.device),
            direction=direction if direction is not None and direction.size else None,
        )  # fmt: skip
        uncovered = 0.0 if voxels is None else 100 * float((voxels[scan.mask] < 0).mean())
        warnings = [*found.warnings, *uncovered_warnings(uncovered, params)]
        self._results |= {"device": found.device, "warnings": warnings, "uncovered": round(uncovered, 2)}
        if found.evidence is None:
            found = replace(found, evidence=np.zeros_like(found.scores))
        if found.brightness is None:
            found = replace(found, brightness=_brightness_beside(scan, params))
        own = found.from_grid(grid, mask)
        for output, name in (("anomaly", "scores"), ("evidence", "evidence"), ("brightness", "brightness")):
            self._save(output, directory, scans.as_image(getattr(own, name), image.affine))


def _brightness_beside(scan: Scan, params: DetectionParameters) -> NDArray[np.float32]:
    """Brightness beside a score that has no part of it, and so does not fail where a scan has none."""
    from bids_wmh_uad.core.score.brightness import brightness_maps

    try:
        return brightness_maps(scan, params).score
    except BadDataError:
        return np.zeros_like(scan.flair_z)
