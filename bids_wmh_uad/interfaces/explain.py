"""The step that samples patches for the page: what the network sees, and how it sorts tissues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bids_wmh_uad.core.lesion.landmarks import Landmark
from bids_wmh_uad.interfaces.base import Stage, load, load_data
from bids_wmh_uad.interfaces.preprocess import WM_CERTAIN

GM_CERTAIN = 0.8


class _ExplainInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    regions = File(exists=True, mandatory=True)
    lesions = File(exists=True, mandatory=True)
    model = traits.Str(mandatory=True, nohash=True)
    model_digest = traits.Str(mandatory=True)
    seed = traits.Int(mandatory=True)


class _ExplainOutput(TraitedSpec):
    sample = File(desc="the arrays of core.explain.Explanation, .npz")


class ExplainModel(Stage):
    """Encode and decode a few patches of each tissue and of the lesions."""

    input_spec = _ExplainInput
    output_spec = _ExplainOutput

    def _compute(self, directory: Path) -> None:
        from dataclasses import asdict

        from bids_wmh_uad.core.image.volume import WorkingGrid
        from bids_wmh_uad.core.score.explain import explain
        from bids_wmh_uad.core.score.scan import Scan
        from bids_wmh_uad.models import load_model

        inputs = self.inputs
        model, _ = load_model(inputs.model)
        image = load(inputs.flair)
        grid = WorkingGrid.from_affine(image.shape, image.affine)
        mask, lesions = load_data(inputs.brain_mask) > 0, load_data(inputs.lesions) > 0
        kinds = {
            "white matter": load_data(inputs.wm) > WM_CERTAIN,
            "grey matter": load_data(inputs.gm) > GM_CERTAIN,
            "ventricles": load_data(inputs.regions) == Landmark.VENTRICLES,
        }
        kinds = {name: tissue & ~lesions for name, tissue in kinds.items()} | {"lesions": lesions}
        scan = Scan(
            grid.forward(np.asanyarray(image.dataobj)),
            grid.forward(load_data(inputs.t1w)),
            grid.forward(mask, order=0),
        )
        on_grid = {name: grid.forward(tissue, order=0) for name, tissue in kinds.items()}
        found = explain(model, scan, on_grid, np.random.default_rng(inputs.seed))
        path = directory / "sample.npz"
        np.savez(path, **asdict(found))
        self._results["sample"] = str(path)
