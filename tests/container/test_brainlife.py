"""``main``, the Brainlife app: on a config.json, with a singularity command, as Brainlife runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from container.fixtures import ROOT, documented, run


@pytest.fixture(scope="module")
def directory(share: Path, sif: Path, bids_dir: Path) -> Path:
    """What Brainlife gives: a directory with the app, its inputs and config.json; the app was run in it."""
    path = share / "brainlife"
    (path / "input").mkdir(parents=True)
    for name in ("main", "config.json.sample"):
        shutil.copy(ROOT / name, path)
    shutil.copy(bids_dir / "sub-01/anat/sub-01_T1w.nii.gz", path / "input/t1.nii.gz")
    shutil.copy(bids_dir / "sub-01/anat/sub-01_FLAIR.nii.gz", path / "input/flair.nii.gz")
    run(*documented("brainlife.md", "./main", image=f"$PWD/bids-wmh-uad.sif=>{sif}"), cwd=path)
    return path


def test_the_masks_are_those_of_the_native_run(directory: Path, native: Path) -> None:
    mask, expected = directory / "mask/mask.nii.gz", "sub-01/anat/sub-01_space-FLAIR_label-WMH_mask.nii.gz"
    assert mask.read_bytes() == (native / expected).read_bytes()
    lesions = np.asanyarray(nib.load(directory / "dseg/parc.nii.gz").dataobj)
    assert np.array_equal(lesions > 0, np.asanyarray(nib.load(mask).dataobj) > 0)
    named = {entry["voxel_value"] for entry in json.loads((directory / "dseg/label.json").read_text())}
    assert named == set(np.unique(lesions)) - {0}


def test_the_page_stands_alone_with_its_figures(directory: Path) -> None:
    assert (directory / "report/html/index.html").read_text().count("<svg") > 1


def test_the_product_is_small_and_tells_the_numbers(directory: Path, native: Path) -> None:
    text = (directory / "product.json").read_text()
    assert len(text) < 10_000
    product = json.loads(text)
    summary = json.loads((native / "sub-01/anat/sub-01_desc-wmh_summary.json").read_text())
    assert product["wmh_volume_ml"] == summary["wmh_volume_ml"]
    kinds = {entry["type"]: entry for entry in product["brainlife"]}
    assert f"{summary['lesion_count']} lesions" in kinds["info"]["msg"]
    assert len(kinds["plotly"]["data"][0]["y"]) == min(summary["lesion_count"], 100)


def test_only_the_app_s_own_directories_are_left(directory: Path) -> None:
    assert {path.name for path in directory.iterdir()} == {
        "main", "config.json", "config.json.sample", "input", "bids", "derivatives", "mask", "dseg", "report", "product.json",
    }  # fmt: skip
