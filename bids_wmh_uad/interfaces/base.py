"""What every node shares: load, call, save, and how long it took.

Every node leaves a ``stage.json`` in its working directory: wall time, processor time and peak memory of that
step, which the run collects in its log.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    SimpleInterface,
)
from numpy.typing import NDArray

from bids_wmh_uad.core.lesion.landmarks import Tissue

Array = NDArray[Any]


class Stage(SimpleInterface):
    """An interface whose wall time, processor time (of all its threads) and peak memory are recorded."""

    def _run_interface(self, runtime: Any) -> Any:
        with contextlib.suppress(OSError):  # not every kernel or sandbox has it
            Path("/proc/self/clear_refs").write_text("5")  # resets this process's peak memory
        start, cpu_start = perf_counter(), process_time()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Resampling binary images")
            self._compute(Path(runtime.cwd))
        stage = {
            "seconds": round(perf_counter() - start, 2),
            "cpu_seconds": round(process_time() - cpu_start, 2),
            "peak_gb": round(_peak_memory_gb(), 2),
        }
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


def load_tissue(inputs: Any) -> Tissue:
    """Contrasts, brain and grey-matter prior of a step's inputs `flair`, `t1w`, `brain_mask` and `gm`."""
    return Tissue(
        load_data(inputs.flair), load_data(inputs.t1w), load_data(inputs.brain_mask) > 0, load_data(inputs.gm)
    )
