"""The brain in a head: a stripped one, none, and a GPU without room."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import deepbet
import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from bids_wmh_uad.errors import NO_BRAIN, BadImageError
from bids_wmh_uad.imaging import scans
from bids_wmh_uad.imaging.brain import brain_mask

if TYPE_CHECKING:
    from pathlib import Path

    from bids_wmh_uad.phantom import PhantomSubject


def canonical(image: Any, path: Path) -> nib.Nifti1Image:
    nib.save(image, path)
    return scans.read_scan(path)


def test_a_stripped_brain_keeps_its_outline(phantom: PhantomSubject, tmp_path: Path) -> None:
    image = canonical(phantom.t1w, tmp_path / "t1w.nii")
    mask, stripped = brain_mask(image, tmp_path / "t1w.nii", device="cpu")
    assert stripped
    brain = np.asanyarray(image.dataobj) != 0
    assert not (brain & ~mask).any()
    np.testing.assert_array_equal(mask, ndimage.binary_fill_holes(brain))


@pytest.mark.parametrize(
    ("message", "survives"),
    [("CUDA out of memory. Tried to allocate 2.00 GiB", True), ("CUDA error: launch failed", False)],
)
def test_what_a_gpu_has_no_memory_for_the_cpu_does(
    phantom: PhantomSubject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    message: str,
    survives: bool,
) -> None:
    image = canonical(phantom.t1w, tmp_path / "t1w.nii")
    wanted, _ = brain_mask(image, tmp_path / "t1w.nii", device="cpu")
    whole = deepbet.BrainExtraction

    def without_room(no_gpu: bool = False) -> Any:
        if not no_gpu:
            raise RuntimeError(message)
        return whole(no_gpu=True)

    monkeypatch.setattr(deepbet, "BrainExtraction", without_room)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    if survives:
        found, _ = brain_mask(image, tmp_path / "t1w.nii", device="cuda")
        np.testing.assert_array_equal(found, wanted)
        assert "the CPU did it" in caplog.text
    else:
        with pytest.raises(RuntimeError, match="launch failed"):
            brain_mask(image, tmp_path / "t1w.nii", device="cuda")


def test_noise_is_no_brain(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
    image = scans.as_image(data, np.diag([0.5, 0.5, 0.5, 1]))  # 8 mL: less than any brain
    with pytest.raises(BadImageError) as raised:
        brain_mask(image, tmp_path / "noise.nii", device="cpu")
    assert str(raised.value).startswith(NO_BRAIN.split("{volume")[0].format(path=tmp_path / "noise.nii"))
