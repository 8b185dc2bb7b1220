"""The node that reads what an earlier run left, in place of preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from bids_wmh_uad.core.image.intensity import Scaling
from bids_wmh_uad.imaging import registration, scans
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.imaging.scans import read_volume
from bids_wmh_uad.imaging.templates import priors_on
from bids_wmh_uad.interfaces.base import Stage


class _ReuseInput(BaseInterfaceInputSpec):
    flair = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    brain = File(exists=True, mandatory=True)
    t1w_to_flair = File(exists=True, mandatory=True)
    t1w_to_template = File(exists=True, mandatory=True)
    scaling = traits.Dict(mandatory=True)
    stripped = traits.Dict(mandatory=True)
    shift = traits.Dict(mandatory=True)
    overlap = traits.Float(mandatory=True)


class _ReuseOutput(TraitedSpec):
    """`preprocess.OUTPUT_FIELDS`."""

    flair = File()
    t1w = File()
    flair_z = File()
    t1w_z = File()
    scaling = traits.Dict()
    brain_mask = File()
    wm = File()
    gm = File()
    template = File()
    flair_to_t1w = traits.List(traits.List(traits.Float))
    t1w_to_template = traits.List(traits.List(traits.Float))
    overlap = traits.Float()
    flair_stripped = traits.Bool()
    t1w_stripped = traits.Bool()
    flair_shift = traits.Float()
    t1w_shift = traits.Float()


class ReusePreprocessed(Stage):
    """Read what an earlier run left, as the preprocessing would have made it."""

    input_spec = _ReuseInput
    output_spec = _ReuseOutput

    def _compute(self, directory: Path) -> None:
        i = self.inputs
        flair = scans.read_scan(Path(i.flair))
        data: dict[str, Any] = {"flair": np.asanyarray(flair.dataobj)}
        data["t1w"] = np.asanyarray(scans.read_scan(Path(i.t1w)).dataobj)
        mask = read_volume(Path(i.brain))
        canonical = nib.as_closest_canonical(nib.Nifti1Image((mask.data > 0).astype(np.uint8), mask.affine))
        data["brain_mask"] = np.asanyarray(canonical.dataobj)
        flair_to_t1w, t1w_to_template = (
            np.linalg.inv(read_transform(Path(i.t1w_to_flair))).round(registration.DECIMALS),
            read_transform(Path(i.t1w_to_template)).round(registration.DECIMALS),
        )
        from_template = np.linalg.inv(flair_to_t1w) @ np.linalg.inv(t1w_to_template)
        data |= priors_on(flair, from_template)
        data |= {f"{name}_z": Scaling(**i.scaling[name]).apply(data[name]) for name in ("flair", "t1w")}
        for name, values in data.items():
            self._save(name, directory, scans.as_image(values, flair.affine))
        self._results |= {
            "scaling": i.scaling,
            "overlap": i.overlap,
            "flair_to_t1w": flair_to_t1w.tolist(),
            "t1w_to_template": t1w_to_template.tolist(),
            "flair_stripped": i.stripped["flair"],
            "t1w_stripped": i.stripped["t1w"],
            "flair_shift": i.shift["flair"],
            "t1w_shift": i.shift["t1w"],
        }
