"""The end of a session's graph: native grids, sidecars, figures, publication."""

from __future__ import annotations

import logging
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from bids_wmh_uad import __version__
from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.sidecars import SHIFTED_UNITS, describe_scan, sidecars
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging import registration, scans
from bids_wmh_uad.imaging.resampling import resample
from bids_wmh_uad.imaging.templates import template
from bids_wmh_uad.interfaces.base import Stage, load, load_data

LOGGER = logging.getLogger("bids_wmh_uad.report")
PACKAGES = (
    "antspyx",
    "deepbet",
    "nilearn",
    "nipype",
    "niworkflows",
    "nireports",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
)
FIGURE_FAILED = "{label}: figure '{name}' could not be drawn ({reason}); the results are not affected."


INTERPOLATION = {"probability": "linear", "mask": "nearest"}
"""How images come to another space. A mask that is made of the linear map loses its small lesions: docs/method.md."""


class _FinishInput(BaseInterfaceInputSpec):
    source = File(exists=True, mandatory=True, desc="the user's FLAIR: its grid is the outputs'")
    flair = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    brain = File(exists=True, mandatory=True)
    anomaly = File(exists=True, mandatory=True)
    evidence = File(exists=True, mandatory=True)
    brightness = File(exists=True, mandatory=True)
    probability = File(exists=True, mandatory=True)
    lesions = File(exists=True, mandatory=True)
    rejected = File(exists=True, mandatory=True)
    regions = File(exists=True, mandatory=True)
    lobes = File(exists=True, mandatory=True)
    flair_to_t1w = traits.List(traits.List(traits.Float), mandatory=True)
    t1w_to_template = traits.List(traits.List(traits.Float), mandatory=True)


class _FinishOutput(TraitedSpec):
    flair = File()
    t1w = File()
    brain = File()
    anomaly = File()
    evidence = File()
    brightness = File()
    probability = File()
    mask = File()
    lesions = File()
    rejected = File()
    regions = File()
    lobes = File()
    t1w_to_flair = File()
    t1w_to_template = File()
    flair_to_template = File()


class FinishImages(Stage):
    """Put every image back on the FLAIR's own grid, and the transforms into ITK files."""

    input_spec = _FinishInput
    output_spec = _FinishOutput

    def _compute(self, directory: Path) -> None:
        source = read_grid(Path(self.inputs.source))
        for name, dtype in derivatives.IMAGE_TYPES.items():
            data = (
                load_data(self.inputs.lesions) > 0
                if name == "mask"
                else load_data(getattr(self.inputs, name))
            )
            path = directory / f"{name}.nii"
            nib.save(scans.to_grid_of(data.astype(dtype), source), path)
            self._results[name] = str(path)
        t1w_to_flair = np.linalg.inv(np.asarray(self.inputs.flair_to_t1w))
        t1w_to_template = np.asarray(self.inputs.t1w_to_template)
        matrices = {
            "t1w_to_flair": t1w_to_flair,
            "t1w_to_template": t1w_to_template,
            "flair_to_template": t1w_to_template @ np.linalg.inv(t1w_to_flair),
        }
        for name, matrix in matrices.items():
            path = directory / f"{name}.txt"
            path.write_text(registration.itk_text(matrix))
            self._results[name] = str(path)


class _SpaceInput(BaseInterfaceInputSpec):
    probability = File(exists=True, mandatory=True, desc="on the FLAIR's own grid")
    mask = File(exists=True, mandatory=True, desc="likewise")
    t1w = File(exists=True, desc="the user's T1w, whose grid is taken; without it the template's")
    transform = File(exists=True, mandatory=True, desc="ITK text: T1w to FLAIR, or FLAIR to template")


class _SpaceOutput(TraitedSpec):
    probability = File()
    mask = File()


class MoveToSpace(Stage):
    """Bring the probability map and the mask to the T1w's grid, or the template's, in one resampling each."""

    input_spec = _SpaceInput
    output_spec = _SpaceOutput

    def _compute(self, directory: Path) -> None:
        i = self.inputs
        transform = registration.read_transform(Path(i.transform))
        if isdefined(i.t1w):
            grid, matrix = read_grid(Path(i.t1w)), np.linalg.inv(transform)
        else:
            grid, matrix = template("T1w"), transform
        for name, interpolation in INTERPOLATION.items():
            moved = resample(load(getattr(i, name)), grid, matrix, interpolation=interpolation)
            self._save(
                name, directory, scans.with_forms_of(moved.astype(derivatives.IMAGE_TYPES[name]), grid)
            )


class _DescribeInput(BaseInterfaceInputSpec):
    session = traits.Any(mandatory=True, desc="Session")
    method = traits.Any(mandatory=True, desc="Method")
    bids_dir = traits.Str(mandatory=True)
    model_digest = traits.Str(mandatory=True, desc="empty: no model took part")
    one_class = traits.Dict(mandatory=True, desc="for the anomaly map's sidecar")
    scaling = traits.Dict(mandatory=True)
    flair_stripped = traits.Bool(mandatory=True)
    t1w_stripped = traits.Bool(mandatory=True)
    flair_shift = traits.Float(mandatory=True)
    t1w_shift = traits.Float(mandatory=True)
    overlap = traits.Float(mandatory=True)
    checks_warnings = traits.List(
        traits.Any, mandatory=True, desc="SessionWarning, as of the next three steps"
    )
    regions_warnings = traits.List(traits.Any, mandatory=True)
    score_warnings = traits.List(traits.Any, mandatory=True)
    segment_warnings = traits.List(traits.Any, mandatory=True)
    checks = traits.Dict(mandatory=True)
    score_device = traits.Str(mandatory=True)
    uncovered = traits.Float(mandatory=True)
    measures = traits.Dict(mandatory=True)
    brain_mask = File(exists=True, mandatory=True)


class _DescribeOutput(TraitedSpec):
    sidecars = traits.Dict(desc="of each image and transform, by its name in OUTPUTS")
    summary = File()


class Describe(Stage):
    """Write the session's summary and the content of every sidecar."""

    input_spec = _DescribeInput
    output_spec = _DescribeOutput
    _always_run = True  # the signature follows the scans' content and the version, which are no inputs

    def _compute(self, directory: Path) -> None:
        inputs = self.inputs
        measures = {**inputs.measures, **_brain_measures(inputs.brain_mask, inputs.measures)}
        stripped = {"flair": inputs.flair_stripped, "t1w": inputs.t1w_stripped}
        shift = {"flair": inputs.flair_shift, "t1w": inputs.t1w_shift}
        about = {
            name: {"SkullStripped": stripped[name], "WhiteMatter": inputs.scaling[name]}
            | ({"IntensityShift": shift[name], "Units": SHIFTED_UNITS} if shift[name] else {})
            for name in stripped
        }
        self._results["sidecars"] = sidecars(
            inputs.session,
            Path(inputs.bids_dir),
            inputs.method,
            inputs.model_digest,
            inputs.one_class,
            about,
            measures["threshold"],
            inputs.score_device,
        )
        model = {"name": Path(inputs.method.model).name, "digest": inputs.model_digest}
        learnt = inputs.method.parameters.uses_network
        steps = (
            inputs.checks_warnings,
            inputs.regions_warnings,
            inputs.score_warnings,
            inputs.segment_warnings,
        )
        summary = {
            "participant_id": f"sub-{inputs.session.subject}",
            "session_id": f"ses-{inputs.session.session}" if inputs.session.session else "n/a",
            "status": "done",
            **measures,
            "score": inputs.method.score,
            "paradigm": inputs.method.paradigm if learnt else None,
            "percent_without_model": inputs.uncovered if learnt else None,
            "model": model if learnt else None,
            "registration_overlap": round(inputs.overlap, 4),
            "checks": inputs.checks,
            "warnings": [asdict(warning) for warning in chain(inputs.session.warnings, *steps)],
            "Sources": [
                derivatives.raw_uri(path, Path(inputs.bids_dir))
                for path in (inputs.session.flair, inputs.session.t1w)
            ],
            "inputs": {
                "FLAIR": describe_scan(inputs.session.flair, Path(inputs.bids_dir)),
                "T1w": describe_scan(inputs.session.t1w, Path(inputs.bids_dir)),
            },
            "versions": _versions(),
            "preprocessing": derivatives.preprocessing_signature(inputs.session, inputs.method.random_seed),
            "signature": derivatives.signature(inputs.session, inputs.method, inputs.model_digest),
        }
        path = directory / "summary.json"
        path.write_bytes(dump_json(summary))
        self._results["summary"] = str(path)


def _versions() -> dict[str, str]:
    """Versions of the program and of the packages that results depend on."""
    from importlib.metadata import version
    from platform import python_version

    return {"bids-wmh-uad": __version__, "python": python_version()} | {
        name: version(name) for name in PACKAGES
    }


def _brain_measures(brain_mask: str, measures: dict[str, Any]) -> dict[str, Any]:
    image = nib.load(brain_mask)
    icv = float((np.asanyarray(image.dataobj) > 0).sum() * np.prod(image.header.get_zooms()[:3]) / 1000)
    return {"icv_ml": round(icv, 3), "wmh_percent_icv": round(100 * measures["wmh_volume_ml"] / icv, 4)}


class _FigureInput(BaseInterfaceInputSpec):
    label = traits.Str(mandatory=True)
    prefix = traits.Str(mandatory=True, desc="start of the session's file names")
    flair = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    brain = File(exists=True, mandatory=True)
    anomaly = File(exists=True, mandatory=True)
    lesions = File(exists=True, mandatory=True)
    rejected = File(exists=True, mandatory=True)
    sample = File(exists=True, desc="from ExplainModel; without it no figures of the network")
    measures = traits.Dict(mandatory=True)


class _FigureOutput(TraitedSpec):
    figures = traits.List(File, desc="SVG files, and the viewer's JSON")
    names = traits.List(traits.Str, desc="what each shows: the desc- entity")


class DrawFigures(Stage):
    """Draw the subject page's figures; one that fails is left out and said."""

    input_spec = _FigureInput
    output_spec = _FigureOutput

    def _compute(self, directory: Path) -> None:
        from bids_wmh_uad.reports.figures import charts
        from bids_wmh_uad.reports.figures import lesions as draw_lesions
        from bids_wmh_uad.reports.figures import scans as draw
        from bids_wmh_uad.reports.figures.viewer import write_viewer

        i = self.inputs
        threshold = i.measures["threshold"]["value"]
        plots = {
            "lesions": lambda out: draw_lesions.plot_lesions(
                i.flair, i.lesions, out, mask=i.brain, rejected=i.rejected, prefix=i.prefix
            ),
            "anomaly": lambda out: draw_lesions.plot_anomaly_map(
                i.flair, i.anomaly, threshold, out, lesions=i.lesions, mask=i.brain
            ),
            "viewer": lambda out: write_viewer(
                i.flair, i.anomaly, threshold, out, mask=i.brain, lesions=i.lesions, rejected=i.rejected
            ),
            "histogram": lambda out: charts.plot_score_histogram(
                i.anomaly, i.brain, threshold, out, volumes=i.measures
            ),
            "brain": lambda out: draw.plot_brain_mask(i.flair, i.brain, out),
            "coreg": lambda out: draw.plot_registration(i.flair, i.t1w, out, mask=i.brain),
            "norm": lambda out: draw.plot_template_registration(i.flair, i.template, out, mask=i.brain),
        }
        if isdefined(i.sample):
            sample = dict(np.load(i.sample))
            plots["patches"] = lambda out: charts.plot_patches(sample, out)
            plots["latents"] = lambda out: charts.plot_latents(sample, out)
        done = {}
        for name, plot in plots.items():
            kind = "json" if name == "viewer" else "svg"
            out = directory / f"{i.prefix}_{name}.{kind}"  # parts of a drawing are named after its file
            try:
                plot(out)
                done[name] = str(out)
            except Exception as error:  # noqa: BLE001 (a picture must not cost the session its results)
                LOGGER.warning(FIGURE_FAILED.format(label=i.label, name=name, reason=error))
        self._results["figures"], self._results["names"] = list(done.values()), list(done)


class _PublishInput(BaseInterfaceInputSpec):
    files = traits.List(File(exists=True), mandatory=True, desc="in the staging tree")
    staging = traits.Str(mandatory=True)
    output_dir = traits.Str(mandatory=True)


class _PublishOutput(TraitedSpec):
    written = traits.List(traits.Str, desc="files that were not right already")


class Publish(Stage):
    """Move the staged files to the output dataset."""

    input_spec = _PublishInput
    output_spec = _PublishOutput
    _always_run = True

    def _compute(self, directory: Path) -> None:  # noqa: ARG002
        written = derivatives.publish(Path(self.inputs.staging), Path(self.inputs.output_dir))
        self._results["written"] = [str(path) for path in written]
