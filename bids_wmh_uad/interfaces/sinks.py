"""The node that puts outputs in their places and writes their sidecars, by niworkflows' rules.

Images go into the staging tree uncompressed: niworkflows' sink would compress them again at the slowest
level. Publishing compresses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    DynamicTraitedSpec,
    File,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits
from niworkflows.interfaces.bids import DerivativesDataSink

from bids_wmh_uad.bids.derivatives import IMAGE_TYPES, figure_path, output_path
from bids_wmh_uad.config import SPACES
from bids_wmh_uad.interfaces.base import Stage


class WmhDataSink(DerivativesDataSink):
    """niworkflows' data sink, told the name: it makes none of its own.

    Parameters
    ----------
    place : PurePath
        Below ``base_directory``. The extension is the file's own.
    **inputs
        Of niworkflows' sink.
    """

    out_path_base = ""

    def __init__(self, place: PurePath, **inputs: Any) -> None:
        super().__init__(**inputs)
        stem = str(place.with_name(place.name.partition(".")[0]))
        self._file_patterns = (f"{stem}{{extension}}",)


class _StageInput(DynamicTraitedSpec, BaseInterfaceInputSpec):
    session = traits.Any(mandatory=True, desc="Session: its FLAIR gives the names")
    space = traits.Str(SPACES[0], usedefault=True, desc="the images'")
    staging = traits.Str(mandatory=True, desc="a tree like the output dataset's")
    sidecars = traits.Dict(desc="content of the JSON file beside an output, by the output's name")
    figures = traits.List(File(exists=True), desc="of the session's page")
    figure_names = traits.List(traits.Str, desc="what each shows: the desc- entity")
    others = traits.List(File(exists=True), desc="what lies in the staging tree already")


class _StageOutput(TraitedSpec):
    files = traits.List(File, desc="all in the staging tree")


class StageOutputs(Stage):
    """Give each output its name in the staging tree, and its sidecar beside it.

    One node for all of a session's, and in a worker: sinks by themselves run in the process that schedules everything.

    Parameters
    ----------
    outputs : sequence of str
        By their names in `derivatives.OUTPUTS`: each is an input, the file.
    **inputs
        The others.
    """

    input_spec = _StageInput
    output_spec = _StageOutput
    _always_run = True  # the staging tree is not kept

    def __init__(self, outputs: Sequence[str], **inputs: Any) -> None:
        super().__init__(**inputs)
        self._names = tuple(outputs)
        add_traits(self.inputs, self._names, File(exists=True))

    def _compute(self, directory: Path) -> None:  # noqa: ARG002
        i = self.inputs
        sidecars = i.sidecars if isdefined(i.sidecars) else {}
        files = list(i.others) if isdefined(i.others) else []
        for name in self._names:
            stored: dict[str, Any] = (
                {"compress": False, "data_dtype": IMAGE_TYPES[name]} if name in IMAGE_TYPES else {}
            )
            place = output_path(Path(), i.session, name, i.space)
            files.append(self._put(place, getattr(i, name), meta_dict=sidecars.get(name, {}), **stored))
        if isdefined(i.figures):
            files += [
                self._put(figure_path(Path(), i.session, name), figure)
                for name, figure in zip(i.figure_names, i.figures, strict=True)
            ]
        self._results["files"] = files

    def _put(self, place: PurePath, file: str, **inputs: Any) -> str:
        sink = WmhDataSink(
            place,
            in_file=file,
            base_directory=self.inputs.staging,
            source_file=str(self.inputs.session.flair),
            check_hdr=False,
            **inputs,
        )
        return str(sink.run().outputs.out_file)
