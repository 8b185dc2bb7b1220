"""The train level on finished derivatives, and what the participant level does with its controls and with ``-d``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from program import IMAGES, Run, participant, save, validator_errors, wmh, work_of

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import find_sessions
from bids_wmh_uad.config import Selection
from bids_wmh_uad.core.image.volume import WorkingGrid
from bids_wmh_uad.errors import NOT_REUSED, ModelError
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.imaging.controls import open_control
from bids_wmh_uad.imaging.masks import read_lesions
from bids_wmh_uad.train.normality import MINIMUM_CONTROLS

pytestmark = pytest.mark.slow
REFERENCED = "31"
"""The control with a reference mask; the others have the program's own."""


@pytest.fixture(scope="module")
def controls(first: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """As many participants as voxel-wise models need, their finished results, and a reference mask.

    All are the phantom of the first run, with noise of their own: nothing has to be preprocessed.
    """
    root = tmp_path_factory.mktemp("controls")
    bids, out, manual = root / "bids", root / "out", root / "manual"
    rng = np.random.default_rng(0)
    source = first.session("sub-01")
    for number in range(MINIMUM_CONTROLS):
        label = f"3{number}"
        for suffix, path in (("T1w", source.t1w), ("FLAIR", source.flair)):
            image = nib.load(path)
            image.header["descrip"] = label.encode()  # another file
            save(image, bids / f"sub-{label}" / "anat" / f"sub-{label}_{suffix}.nii.gz")
    (bids / "dataset_description.json").write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
    derivatives.write_dataset_files(out, bids)
    for session in find_sessions(bids, Selection())[0]:
        for name in derivatives.OUTPUTS:
            old, new = first.path("sub-01", name), derivatives.output_path(out, session, name)
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(old, new)
            if old.suffix in (".gz", ".txt"):
                shutil.copy(derivatives.sidecar_path(old), derivatives.sidecar_path(new))
            if name in ("flair", "t1w"):
                image = nib.load(old)
                data = np.asanyarray(image.dataobj)
                noisy = data + rng.normal(0, 0.02 * data.max(), data.shape).astype(np.float32)
                save(nib.Nifti1Image(noisy, image.affine, image.header), new)
        summary = derivatives.output_path(out, session, "summary")
        content = derivatives.read_summary(summary)
        content["preprocessing"] = derivatives.preprocessing_signature(session, 0)
        summary.write_bytes(dump_json(content))
    mask = f"sub-{REFERENCED}_space-FLAIR_label-lesion_mask.nii.gz"
    (manual / f"sub-{REFERENCED}" / "anat").mkdir(parents=True)
    shutil.copy(first.path("sub-01", "mask"), manual / f"sub-{REFERENCED}" / "anat" / mask)
    return bids, out, manual


@pytest.fixture(scope="module")
def trained(controls: tuple[Path, Path, Path]) -> Run:
    """A model of the controls, beside their scans."""
    bids, out, manual = controls
    return wmh(
        bids, bids.parent / "train", "train", "-d", f"ours={out}", manual, "--output-model", bids.parent / "model",
        "--epochs", "1", "--patches-per-epoch", "512", "--nu", "0.2",
    )  # fmt: skip


def model_of(run: Run) -> Path:
    return run.bids_dir.parent / "model"


def test_finished_derivatives_are_not_preprocessed_again(trained: Run) -> None:
    assert trained.code == 0, trained.log
    assert trained.log.count("preprocessing reused") == MINIMUM_CONTROLS
    (log,) = (trained.output_dir / "logs").iterdir()
    work = work_of(trained.output_dir)
    assert not list(work.rglob("n4_flair"))
    assert len(list(work.rglob("reuse/stage.json"))) == MINIMUM_CONTROLS
    assert not list(log.glob("crash-*"))


def test_the_model_says_what_it_learnt_and_what_was_left_out(trained: Run) -> None:
    about = json.loads((model_of(trained) / "model.json").read_text())
    assert about["training"]["lesions_left_out"] == {
        "label-free masks": MINIMUM_CONTROLS - 1,
        "reference masks": 1,
    }
    assert (
        about["one_class"]["pooled"]["controls"]
        == about["one_class"]["voxel"]["controls"]
        == MINIMUM_CONTROLS
    )
    assert about["one_class"]["voxel"]["nu"] == 0.2
    assert not any(f"sub-3{number}" in json.dumps(about) for number in range(MINIMUM_CONTROLS))


def test_lesions_are_no_places_for_training_patches(trained: Run, controls: tuple[Path, Path, Path]) -> None:
    _, out, _ = controls
    for session in find_sessions(trained.bids_dir, Selection())[0][:2]:  # own masks, and the reference
        brain, mask = (derivatives.output_path(out, session, name) for name in ("brain", "mask"))
        image = nib.as_closest_canonical(nib.load(brain))
        grid = WorkingGrid.from_affine(image.shape, image.affine)
        inside = grid.forward(np.asanyarray(image.dataobj) > 0, order=0)
        lesions = grid.forward(read_lesions(mask, session.flair)[0], order=0)
        assert (inside & lesions).any()
        (control,) = work_of(trained.output_dir).glob(f"*/{session.workflow_name}/prepare/control")
        assert open_control(control).mask.sum() == (inside & ~lesions).sum()


@pytest.mark.parametrize("paradigm", ["pooled", "voxel"])
def test_the_controls_say_what_is_normal(trained: Run, first: Run, tmp_path: Path, paradigm: str) -> None:
    run = participant(
        first.bids_dir, tmp_path / "out", model_of(trained), "--participant-label", "01",
        "--paradigm", paradigm, "-d", first.output_dir,
    )  # fmt: skip
    assert run.code == 0, run.log
    summary = derivatives.read_summary(run.path("sub-01", "summary"))
    assert summary["paradigm"] == paradigm
    assert 0 <= summary["percent_without_model"] < 10
    assert (summary["percent_without_model"] == 0) or paradigm == "voxel"
    sidecar = json.loads(derivatives.sidecar_path(run.path("sub-01", "anomaly")).read_text())
    assert sidecar["OneClassSVM"]["Paradigm"] == paradigm
    assert sidecar["OneClassSVM"]["Nu"] == 0.2
    assert sidecar["OneClassSVM"]["Controls"] == MINIMUM_CONTROLS
    own, theirs = (np.asanyarray(nib.load(each.path("sub-01", "anomaly")).dataobj) for each in (first, run))
    assert np.isfinite(theirs).all()
    assert (own != theirs).any()
    assert f"{MINIMUM_CONTROLS} controls" in (run.output_dir / "CITATION.md").read_text()
    assert validator_errors(run.output_dir) == []
    again = participant(
        first.bids_dir, run.output_dir, model_of(trained), "--participant-label", "01", "--paradigm", paradigm
    )
    assert "finished before" in again.log


def test_reused_preprocessing_gives_the_same_bytes(first: Run, model_dir: Path, tmp_path: Path) -> None:
    run = participant(
        first.bids_dir, tmp_path / "out", model_dir, "--participant-label", "01", "02", "-d", first.output_dir
    )
    assert run.code == 0, run.log
    assert not list(work_of(tmp_path / "out").rglob("n4_flair"))
    for label in ("sub-01", "sub-02/ses-1"):
        for output in (*IMAGES, "table", "summary", "t1w_to_flair", "t1w_to_template", "flair_to_template"):
            assert run.path(label, output).read_bytes() == first.path(label, output).read_bytes(), output


def test_results_of_another_seed_are_not_reused_and_that_is_said(
    first: Run, model_dir: Path, tmp_path: Path
) -> None:
    run = participant(
        first.bids_dir, tmp_path / "out", model_dir, "--participant-label", "01",
        "-d", first.output_dir, "--random-seed", "1", "--boilerplate-only",
    )  # fmt: skip
    start = NOT_REUSED.split("{reason}")[0].format(where="sub-01", path=first.output_dir)
    assert run.code == 0, run.log
    assert start in run.log


def test_a_model_without_controls_is_refused_before_anything_is_done(
    first: Run, model_dir: Path, tmp_path: Path
) -> None:
    run = participant(first.bids_dir, tmp_path / "out", model_dir, "--paradigm", "voxel")
    assert run.code == ModelError.exit_code
    assert "it has no voxel One-Class SVM" in run.log
    assert not list((tmp_path / "out").glob("sub-*"))
