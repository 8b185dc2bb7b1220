"""The nodes of the preprocessing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from bids_wmh_uad.core.device import configure_torch, resolve_device
from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.imaging import bias, registration, resampling, scans, templates
from bids_wmh_uad.imaging.brain import brain_mask
from bids_wmh_uad.imaging.templates import priors_on
from bids_wmh_uad.interfaces.base import Stage, load, load_data

Array = NDArray[Any]
MIN_OVERLAP = 0.3
WM_CERTAIN = 0.9
"""White-matter prior above which a voxel serves as intensity reference."""


class _ReadInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the user's scan")


class _ReadOutput(TraitedSpec):
    out_file = File(desc="canonical, float32, finite")
    shift = traits.Float(desc="what was added to all but the background, which is 0; else 0")


class ReadScan(Stage):
    """Check one scan and bring it into the canonical form."""

    input_spec = _ReadInput
    output_spec = _ReadOutput

    def _compute(self, directory: Path) -> None:
        image, self._results["shift"] = scans.read_lifted_scan(Path(self.inputs.in_file))
        self._save("out_file", directory, image)


class _BrainInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="from ReadScan")
    scan = traits.Str(mandatory=True, desc="the user's file, for messages")
    threads = traits.Int(1, usedefault=True, nohash=True)
    device = traits.Str("cpu", usedefault=True, nohash=True)


class _BrainOutput(TraitedSpec):
    out_mask = File(desc="uint8 brain mask")
    stripped = traits.Bool(desc="the scan was skull-stripped already")


class ExtractBrain(Stage):
    """Brain mask of a T1w or FLAIR."""

    input_spec = _BrainInput
    output_spec = _BrainOutput

    def _compute(self, directory: Path) -> None:
        configure_torch(self.inputs.threads)
        image = load(self.inputs.in_file)
        mask, stripped = brain_mask(image, Path(self.inputs.scan), device=resolve_device(self.inputs.device))
        self._save("out_mask", directory, scans.as_image(mask.astype(np.uint8), image.affine))
        self._results["stripped"] = bool(stripped)


class _BiasInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    in_mask = File(exists=True, mandatory=True)
    levels = traits.Int(3, usedefault=True, desc="resolutions of the field")


class _BiasOutput(TraitedSpec):
    out_file = File(desc="as in_file")


class CorrectBias(Stage):
    """N4 inside the brain mask."""

    input_spec = _BiasInput
    output_spec = _BiasOutput

    def _compute(self, directory: Path) -> None:
        image = load(self.inputs.in_file)
        corrected = bias.correct_bias(image, load_data(self.inputs.in_mask) > 0, levels=self.inputs.levels)
        self._save("out_file", directory, scans.as_image(corrected, image.affine))


class _RegisterInput(BaseInterfaceInputSpec):
    moving = File(exists=True, mandatory=True)
    moving_mask = File(exists=True, mandatory=True)
    fixed = File(exists=True, desc="a scan; the template if not given")
    fixed_mask = File(exists=True)
    transform = traits.Enum("Rigid", "Affine", mandatory=True)
    seed = traits.Int(mandatory=True)
    threads = traits.Int(1, usedefault=True, desc="ITK threads: more than one changes the result slightly")


class _RegisterOutput(TraitedSpec):
    matrix = traits.List(traits.List(traits.Float), desc="4x4, moves the image to the fixed space, RAS mm")


class Register(Stage):
    """Linear registration of two brains, or of a brain to the template."""

    input_spec = _RegisterInput
    output_spec = _RegisterOutput

    def _compute(self, directory: Path) -> None:  # noqa: ARG002
        moving = _masked(self.inputs.moving, self.inputs.moving_mask)
        fixed = (
            _masked(self.inputs.fixed, self.inputs.fixed_mask)
            if isinstance(self.inputs.fixed, str)
            else templates.template("T1w", resolution=2)
        )
        matrix = registration.register(fixed, moving, transform=self.inputs.transform, seed=self.inputs.seed)
        self._results["matrix"] = matrix.tolist()


def _masked(path: str, mask: str) -> nib.Nifti1Image:
    image = load(path)
    return scans.as_image(np.asanyarray(image.dataobj) * (load_data(mask) > 0), image.affine)


class _AlignInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True)
    flair_mask = File(exists=True, mandatory=True)
    flair_stripped = traits.Bool(mandatory=True)
    t1w = File(exists=True, mandatory=True)
    t1w_mask = File(exists=True, mandatory=True)
    t1w_scan = traits.Str(mandatory=True, desc="the user's file, for messages")
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)


class _AlignOutput(TraitedSpec):
    t1w = File(desc="T1w on the FLAIR grid")
    brain_mask = File(desc="union of both masks; a stripped FLAIR's own outline")
    wm = File(desc="white-matter prior on the FLAIR grid, [0, 1]")
    gm = File(desc="grey-matter prior on the FLAIR grid, [0, 1]")
    template = File(desc="the T1w template on the FLAIR grid")
    overlap = traits.Float(desc="Dice of the two brain masks after registration")
    flair_z = File(desc="robust z, whole field of view")
    t1w_z = File(desc="robust z, whole field of view")
    scaling = traits.Dict(desc="mode and scale of each contrast, in scanner units")


class AlignToFLAIR(Stage):
    """Bring T1w, masks and tissue priors to the FLAIR's grid; both contrasts as robust z-scores against white matter."""

    input_spec = _AlignInput
    output_spec = _AlignOutput

    def _compute(self, directory: Path) -> None:
        flair = load(self.inputs.flair)
        to_flair = np.linalg.inv(np.asarray(self.inputs.flair_to_t1w))
        from_template = to_flair @ np.linalg.inv(np.asarray(self.inputs.t1w_to_template))
        t1w = resampling.resample(load(self.inputs.t1w), flair, to_flair, interpolation="continuous")
        t1w_mask = resampling.resample(load(self.inputs.t1w_mask), flair, to_flair) > 0.5
        flair_mask = load_data(self.inputs.flair_mask) > 0
        self._check_overlap(dice(t1w_mask, flair_mask))
        mask = flair_mask if self.inputs.flair_stripped else flair_mask | t1w_mask
        outputs = {"t1w": t1w, "brain_mask": mask.astype(np.uint8), **priors_on(flair, from_template)}
        outputs |= self._z_scores(
            {"flair": load_data(self.inputs.flair), "t1w": t1w}, mask & (outputs["wm"] > WM_CERTAIN)
        )
        for name, data in outputs.items():
            self._save(name, directory, scans.as_image(data, flair.affine))

    def _check_overlap(self, overlap: float) -> None:
        from bids_wmh_uad.errors import NO_OVERLAP, BadImageError

        if overlap < MIN_OVERLAP:
            raise BadImageError(NO_OVERLAP.format(path=self.inputs.t1w_scan, dice=overlap))
        self._results["overlap"] = round(overlap, 4)

    def _z_scores(self, contrasts: dict[str, Array], reference: Array) -> dict[str, Array]:
        from bids_wmh_uad.core.image.intensity import fit_scaling

        scalings = {name: fit_scaling(data, reference, name=name) for name, data in contrasts.items()}
        self._results["scaling"] = {name: asdict(scaling) for name, scaling in scalings.items()}
        return {f"{name}_z": scaling.apply(contrasts[name]) for name, scaling in scalings.items()}
