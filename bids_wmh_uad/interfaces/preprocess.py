"""Thin nipype shells around the image tools and ``core``: load, call, save.

Every interface leaves a ``stage.json`` in its working directory: wall time and peak
memory of that step, which the run collects in its log.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from bids_wmh_uad.core.device import torch_device
from bids_wmh_uad.core.evaluation.overlap import dice
from bids_wmh_uad.imaging import bias, registration, resampling, scans, templates
from bids_wmh_uad.imaging.brain import brain_mask

Array = NDArray[Any]
MIN_OVERLAP = 0.3
WM_CERTAIN = 0.9
"""White-matter prior above which a voxel serves as intensity reference."""


class Stage(SimpleInterface):
    """An interface whose wall time and peak memory are recorded."""

    def _run_interface(self, runtime: Any) -> Any:
        with contextlib.suppress(OSError):  # not every kernel or sandbox has it
            Path("/proc/self/clear_refs").write_text("5")  # resets this process's peak memory
        start = perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Resampling binary images")
            self._compute(Path(runtime.cwd))
        stage = {"seconds": round(perf_counter() - start, 2), "peak_gb": round(_peak_memory_gb(), 2)}
        (Path(runtime.cwd) / "stage.json").write_text(json.dumps(stage))
        return runtime

    def _compute(self, directory: Path) -> None:
        raise NotImplementedError

    def _save(self, output: str, directory: Path, image: nib.Nifti1Image) -> None:
        path = directory / f"{output}.nii"
        nib.save(image, path)
        self._results[output] = str(path)


def _peak_memory_gb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    return float("nan")


def load(path: str) -> nib.Nifti1Image:
    """Open an image."""
    return nib.load(path)


def load_data(path: str) -> Array:
    """Read an image's values."""
    return np.asanyarray(nib.load(path).dataobj)


class _ReadInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the user's scan")


class _ReadOutput(TraitedSpec):
    out_file = File(desc="canonical, float32, finite")


class ReadScan(Stage):
    """Check one scan and bring it into the canonical form."""

    input_spec = _ReadInput
    output_spec = _ReadOutput

    def _compute(self, directory: Path) -> None:
        self._save("out_file", directory, scans.read_scan(Path(self.inputs.in_file)))


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
        image = load(self.inputs.in_file)
        mask, stripped = brain_mask(
            image, Path(self.inputs.scan), threads=self.inputs.threads, device=self.inputs.device
        )
        self._save("out_mask", directory, scans.as_image(mask.astype(np.uint8), image.affine))
        self._results["stripped"] = bool(stripped)


class _BiasInput(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True)
    in_mask = File(exists=True, mandatory=True)
    levels = traits.Int(3, usedefault=True, desc="resolutions of the field")


class CorrectBias(Stage):
    """N4 inside the brain mask."""

    input_spec = _BiasInput
    output_spec = _ReadOutput

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


class AlignToFLAIR(Stage):
    """Bring T1w, masks and tissue priors to the FLAIR's grid."""

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
        for name, data in outputs.items():
            self._save(name, directory, scans.as_image(data, flair.affine))

    def _check_overlap(self, overlap: float) -> None:
        from bids_wmh_uad.errors import NO_OVERLAP, BadImageError

        if overlap < MIN_OVERLAP:
            raise BadImageError(NO_OVERLAP.format(path=self.inputs.t1w_scan, dice=overlap))
        self._results["overlap"] = round(overlap, 4)


def priors_on(flair: nib.Nifti1Image, from_template: Array) -> dict[str, Array]:
    """The template's tissue priors and T1w on a FLAIR's grid: ``wm``, ``gm``, ``template``."""
    which = {"wm": "WM", "gm": "GM", "template": "T1w"}
    return {
        name: resampling.resample(templates.template(key), flair, from_template)
        for name, key in which.items()
    }


class _NormaliseInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    wm = File(exists=True, mandatory=True)


class _NormaliseOutput(TraitedSpec):
    flair = File(desc="robust z, whole field of view")
    t1w = File(desc="robust z, whole field of view")
    scaling = traits.Dict(desc="mode and scale of each contrast, in scanner units")


class NormaliseIntensity(Stage):
    """Robust z-scores of both contrasts against the white-matter mode and MAD."""

    input_spec = _NormaliseInput
    output_spec = _NormaliseOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.core.image.intensity import robust_zscore

        mask = load_data(self.inputs.brain_mask) > 0
        reference = mask & (load_data(self.inputs.wm) > WM_CERTAIN)
        self._results["scaling"] = {}
        for name in ("flair", "t1w"):
            image = load(getattr(self.inputs, name))
            data = np.asanyarray(image.dataobj)
            _, scaling = robust_zscore(data, mask, reference, name=name)
            self._results["scaling"][name] = {"mode": scaling.location, "scale": scaling.scale}
            z = zscore(data, self._results["scaling"][name])
            self._save(name, directory, scans.as_image(z, image.affine))


def zscore(data: Array, scaling: dict[str, float]) -> NDArray[np.float32]:
    """Robust z of a whole field of view, from white matter's ``mode`` and ``scale``."""
    return ((data - scaling["mode"]) / scaling["scale"]).astype(np.float32)


class _ScoreInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True, desc="robust z")
    t1w = File(exists=True, mandatory=True, desc="robust z")
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True, desc="grey-matter prior, [0, 1]")
    model = traits.Str(mandatory=True, desc="name or directory", nohash=True)
    model_digest = traits.Str(mandatory=True, desc="makes the cache follow the model's content")
    paradigm = traits.Str(mandatory=True)
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)
    score = traits.Str(mandatory=True)
    nu = traits.Float(mandatory=True)
    gamma = traits.Either(traits.Float(), traits.Str(), mandatory=True)
    n_samples = traits.Int(mandatory=True)
    seed = traits.Int(mandatory=True)
    device = traits.Str("cpu", usedefault=True, nohash=True)
    threads = traits.Int(1, usedefault=True, nohash=True)


class _ScoreOutput(TraitedSpec):
    anomaly = File(desc="anomaly map, float32, larger = more abnormal")
    device = traits.Str(desc="where it was computed in the end")
    warnings = traits.List(traits.Str)
    uncovered = traits.Float(desc="percent of the brain without a model")


class ScoreAnomaly(Stage):
    """Embed every voxel's patch and score it with a One-Class SVM: the patient's own, or of controls."""

    input_spec = _ScoreInput
    output_spec = _ScoreOutput

    def _compute(self, directory: Path) -> None:
        import torch

        from bids_wmh_uad.core.image.volume import WorkingGrid
        from bids_wmh_uad.core.score.anomaly import Scan, ScoreParams, anomaly_map
        from bids_wmh_uad.models import load_model
        from bids_wmh_uad.train.normality import load_normality, model_numbers, uncovered_warnings

        torch.set_num_threads(self.inputs.threads)
        model, _ = load_model(self.inputs.model)
        image = load(self.inputs.flair)
        grid = WorkingGrid.from_affine(image.shape, image.affine)
        params = ScoreParams(
            score=self.inputs.score,
            nu=self.inputs.nu,
            gamma=self.inputs.gamma,
            n_samples=self.inputs.n_samples,
        )
        mask = load_data(self.inputs.brain_mask) > 0
        inside = grid.forward(mask, order=0)
        to_template = np.asarray(self.inputs.t1w_to_template) @ np.asarray(self.inputs.flair_to_t1w)
        one_class = load_normality(self.inputs.model, self.inputs.paradigm)
        voxels = model_numbers(one_class, inside, to_template @ grid.affine)
        scan = Scan(
            grid.forward(np.asanyarray(image.dataobj)),
            grid.forward(load_data(self.inputs.t1w)),
            inside,
            grid.forward(load_data(self.inputs.gm)) > templates.GM_LIKELY,
            voxels=voxels,
            zooms=grid.zooms,
        )
        found = anomaly_map(
            model, scan, params, np.random.default_rng(self.inputs.seed),
            one_class=one_class, device=torch_device(self.inputs.device),
        )  # fmt: skip
        uncovered = 0.0 if voxels is None else 100 * float((voxels[inside] < 0).mean())
        said = [*found.warnings, *uncovered_warnings(uncovered)]
        self._results |= {"device": found.device, "warnings": said, "uncovered": round(uncovered, 2)}
        native = np.where(mask, grid.backward(found.scores), 0).astype(np.float32)
        self._save("anomaly", directory, scans.as_image(native, image.affine))


class _SegmentInput(BaseInterfaceInputSpec):
    anomaly = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    gm = File(exists=True, mandatory=True)
    regions = File(exists=True, mandatory=True, desc="from FindRegions")
    threshold = traits.Str(mandatory=True, desc="NAME[=VALUE]")
    min_lesion_volume = traits.Float(mandatory=True, desc="mm3")


class _SegmentOutput(TraitedSpec):
    lesions = File(desc="label image, int32, 1 = largest")
    probability = File(desc="float32 in [0, 1], 0.5 at the threshold")
    table = File(desc="one row per lesion")
    measures = traits.Dict(desc="volumes, counts and the operating point")


class SegmentLesions(Stage):
    """Threshold the anomaly map, label the lesions and measure them."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.bids.tables import write_lesion_table
        from bids_wmh_uad.core.lesion.segmentation import segment

        image = load(self.inputs.anomaly)
        found = segment(
            np.asanyarray(image.dataobj),
            load_data(self.inputs.brain_mask) > 0,
            load_data(self.inputs.gm) > templates.GM_LIKELY,
            image.affine,
            threshold=self.inputs.threshold,
            min_lesion_volume=self.inputs.min_lesion_volume,
            regions=load_data(self.inputs.regions),
        )
        self._save("lesions", directory, scans.as_image(found.labels, image.affine))
        self._save("probability", directory, scans.as_image(found.probability, image.affine))
        self._results["table"] = write_lesion_table(directory / "lesions.tsv", found.lesions, found.places)
        self._results["measures"] = found.measures
