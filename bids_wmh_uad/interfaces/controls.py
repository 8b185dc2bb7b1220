"""The node that prepares a control for training."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, TraitedSpec, traits
from numpy.typing import NDArray

from bids_wmh_uad.imaging.controls import EXCLUDED, save_control
from bids_wmh_uad.imaging.masks import read_lesions
from bids_wmh_uad.interfaces.base import Stage, load, load_data

LOGGER = logging.getLogger("bids_wmh_uad")
CONTROL, CONFIRMED = "control", "run.txt"
"""The directory of a prepared control, and the file that says which run it was prepared for."""


class _PrepareInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    lesions = File(exists=True, desc="mask of what must not be learnt")
    lesions_in_t1w = traits.Bool(False, usedefault=True, desc="its world is the T1w's, not the FLAIR's")
    remedy = traits.Str(desc="what to do about a mask on another grid")
    lesions_kind = traits.Str(mandatory=True)
    scan = File(exists=True, mandatory=True, desc="the user's FLAIR")
    resample = traits.Bool(False, usedefault=True, desc="bring a mask on another grid to the scan's")
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)


class _PrepareOutput(TraitedSpec):
    out_dir = Directory(desc="a prepared control (imaging.controls)")


class PrepareControl(Stage):
    """Bring one control to the working grid, as the network's input."""

    input_spec = _PrepareInput
    output_spec = _PrepareOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.core.image.volume import WorkingGrid
        from bids_wmh_uad.core.network.patches import network_input

        flair = load(self.inputs.flair)
        grid = WorkingGrid.from_affine(flair.shape, flair.affine)
        mask = grid.forward(load_data(self.inputs.brain_mask) > 0, order=0)
        image = network_input(
            grid.forward(np.asanyarray(flair.dataobj)), grid.forward(load_data(self.inputs.t1w)), mask
        )
        if isinstance(self.inputs.lesions, str):
            mask &= ~grid.forward(self._lesions(), order=0)
        to_template = np.asarray(self.inputs.t1w_to_template) @ np.asarray(self.inputs.flair_to_t1w)
        mni_to_voxel = np.linalg.inv(to_template @ grid.affine)
        control = save_control(directory / CONTROL, image, mask, mni_to_voxel)
        (control / EXCLUDED).write_text(self.inputs.lesions_kind)
        self._results["out_dir"] = str(control)

    def _lesions(self) -> NDArray[np.bool_]:
        matrix = np.linalg.inv(self.inputs.flair_to_t1w) if self.inputs.lesions_in_t1w else None
        lesions, notes = read_lesions(
            Path(self.inputs.lesions),
            Path(self.inputs.scan),
            matrix=matrix,
            may_resample=self.inputs.resample,
            remedy=self.inputs.remedy,
        )
        for note in notes:
            LOGGER.warning("%s", note)
        return lesions


class _ConfirmInput(BaseInterfaceInputSpec):
    control = traits.Str(mandatory=True, desc="a prepared control")
    run = traits.Str(mandatory=True, desc="the run's own name")


class _ConfirmOutput(TraitedSpec):
    out_file = File(desc="holds the run's name")


class ConfirmControl(Stage):
    """Say that a control was prepared for this run.

    Nipype runs it only if every step before it succeeded or was found to be of the same inputs: a directory
    that an earlier run left says nothing of the kind.
    """

    input_spec = _ConfirmInput
    output_spec = _ConfirmOutput
    _always_run = True

    def _compute(self, directory: Path) -> None:
        path = directory / CONFIRMED
        path.write_text(self.inputs.run)
        self._results["out_file"] = str(path)
