"""The node that asks whether this is a head's T1w and FLAIR, whole and aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits
from numpy.typing import NDArray

from bids_wmh_uad.core.image import quality
from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.errors import SHIFTED, SessionWarning
from bids_wmh_uad.imaging.scans import geometry_doubts
from bids_wmh_uad.interfaces.base import Stage, load, load_data


class _CheckInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="bias-corrected")
    t1w = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    scaling = traits.Dict(mandatory=True)
    overlap = traits.Float(mandatory=True)
    flair_stripped = traits.Bool(mandatory=True)
    t1w_stripped = traits.Bool(mandatory=True)
    flair_shift = traits.Float(mandatory=True)
    t1w_shift = traits.Float(mandatory=True)
    flair_scan = File(exists=True, mandatory=True, desc="the user's file")
    t1w_scan = File(exists=True, mandatory=True, desc="the user's file")
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)


class _CheckOutput(TraitedSpec):
    numbers = traits.Dict(desc="from core.image.quality.measure")
    warnings = traits.List(traits.Any, desc="SessionWarning")


class CheckScans(Stage):
    """Measure whether the scans are what they should be."""

    input_spec = _CheckInput
    output_spec = _CheckOutput

    def _compute(self, directory: Path) -> None:  # noqa: ARG002
        inputs = self.inputs
        image = load(inputs.flair)
        brain = quality.Brain(
            self._scaled("flair"),
            self._scaled("t1w"),
            load_data(inputs.brain_mask) > 0,
            load_data(inputs.gm),
            load_data(inputs.wm),
            load_data(inputs.template),
            voxel_sizes(image.affine),
        )
        numbers = quality.measure(brain) | {"overlap": inputs.overlap}
        stretches = np.linalg.svd(np.asarray(inputs.t1w_to_template)[:3, :3], compute_uv=False)
        numbers |= {"scale_max": float(stretches[0]), "scale_min": float(stretches[-1])}
        self._results["warnings"] = [
            *self._doubts_of_reading(),
            *quality.quality_warnings(numbers, stripped=inputs.flair_stripped or inputs.t1w_stripped),
        ]
        self._results["numbers"] = {name: round(value, 4) for name, value in numbers.items()}

    def _doubts_of_reading(self) -> list[SessionWarning]:
        """What had to be guessed, converted or shifted when the scans were read."""
        doubts = []
        for name, contrast in (("flair", "FLAIR"), ("t1w", "T1w")):
            doubts += geometry_doubts(Path(getattr(self.inputs, f"{name}_scan")), contrast)
            if shift := getattr(self.inputs, f"{name}_shift"):
                doubts.append(SHIFTED.format(contrast=contrast, value=shift))
        return doubts

    def _scaled(self, name: str) -> NDArray[np.float32]:
        """A contrast in units of white matter's mode."""
        data = load_data(getattr(self.inputs, name)) / self.inputs.scaling[name]["mode"]
        return np.asarray(data, dtype=np.float32)
