"""The phantoms: seeded, of the lesion volume asked for, valid BIDS, and brains that a brain extractor finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to
from scipy import ndimage

from bids_wmh_uad.errors import BAD_VALUE, CannotCreateError, UsageError
from bids_wmh_uad.phantom import PhantomSpec, PhantomSubject, main, make_specs, make_subject, write_dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Coarse and skull-stripped: what the tests look at does not depend on it, their time does.
SPEC = PhantomSpec(
    seed=1, lesion_volume_ml=4, head=False, flair_zooms=(1.2, 1.2, 4), t1w_zooms=(2, 2, 2), misalignment=8
)
REPOSITORY = Path(__file__).parents[2]


def _array(image: Any) -> NDArray[Any]:
    return np.asarray(image.dataobj)


def _volume_ml(mask: Any) -> float:
    return float(_array(mask).sum() * abs(np.linalg.det(mask.affine)) / 1000)


def _dice(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def _to_t1w(mask: Any, subject: PhantomSubject, t1w_to_flair: NDArray[Any]) -> NDArray[Any]:
    """Mask of the FLAIR grid on the T1w grid."""
    moved = nib.Nifti1Image(_array(mask).astype(np.float32), np.linalg.inv(t1w_to_flair) @ mask.affine)
    return resample_from_to(moved, subject.t1w, order=1).get_fdata() > 0.5


@pytest.fixture(scope="module")
def patient() -> PhantomSubject:
    return make_subject(SPEC)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient, two sessions: the same brain, another scan, more lesions."""
    root = tmp_path_factory.mktemp("phantom") / "bids"
    grown = replace(SPEC, seed=2, anatomy_seed=1, lesion_volume_ml=75, orientation="PSR", dtype="float32")
    write_dataset(root, {"sub-01_ses-1": SPEC, "sub-01_ses-2": grown})
    return root


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("anatomy_seed", -1),
        ("lesion_volume_ml", -0.1),
        ("lesion_volume_ml", 101),
        ("lesion_volume_ml", float("nan")),
        ("flair_zooms", (1, 1)),
        ("t1w_zooms", (1, 1, 0.1)),
        ("misalignment", -1),
        ("oblique", 31),
        ("mimics", 1.5),
        ("noise", 0.6),
        ("bias", -0.1),
        ("orientation", "LAR"),
        ("orientation", "LA"),
        ("dtype", "int8"),
    ],
)
def test_spec_refuses(option: str, value: Any) -> None:
    start = BAD_VALUE.format(option=option, value=value, expected="")[:-1]
    with pytest.raises(UsageError) as caught:
        PhantomSpec(**{option: value})
    assert str(caught.value).startswith(start.rstrip())


def test_other_seed_other_subject(patient: PhantomSubject, dataset: Path) -> None:
    other = make_subject(replace(SPEC, seed=3, lesion_volume_ml=0))
    truth = dataset / "derivatives/truth/sub-01/ses-2/anat/sub-01_ses-2_space-FLAIR_desc-brain_mask.nii.gz"
    same_anatomy = nib.load(truth)
    volumes = [_volume_ml(x) for x in (patient.brain, other.brain, same_anatomy)]
    assert abs(volumes[1] / volumes[0] - 1) > 0.02
    assert volumes[2] == pytest.approx(volumes[0], rel=0.01)
    assert not np.array_equal(_array(patient.flair), _array(other.flair))
    assert not np.allclose(patient.flair.affine, other.flair.affine, atol=0.01)
    assert not _array(other.lesions).any()  # a control
    assert other.lesions.get_data_dtype() == np.uint8


def test_same_spec_same_bytes(dataset: Path, tmp_path: Path) -> None:
    """In another process, with another hash seed, at another time."""
    code = (
        "import sys; from bids_wmh_uad.phantom import *\n"
        f"write_dataset(sys.argv[1], {{'sub-01_ses-1': {SPEC!r}}})"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    files = [x.relative_to(tmp_path) for x in tmp_path.rglob("ses-1/anat/*")]
    assert len(files) == 8
    assert [str(x) for x in files if (tmp_path / x).read_bytes() != (dataset / x).read_bytes()] == []


@pytest.fixture(scope="module")
def still() -> PhantomSubject:
    """Nearly no lesions, no motion, no tilt, no noise."""
    still = replace(SPEC, lesion_volume_ml=0.3, misalignment=0, oblique=0, noise=0, bias=0, dtype="float32")
    return make_subject(still)


@pytest.mark.parametrize("name", ["still", "patient"])
def test_lesion_volume(name: str, request: pytest.FixtureRequest) -> None:
    subject: PhantomSubject = request.getfixturevalue(name)
    assert _volume_ml(subject.lesions) == pytest.approx(subject.spec.lesion_volume_ml, rel=0.05)
    assert np.isin(_array(subject.lesions), (0, 1)).all()
    assert not ((_array(subject.lesions) > 0) & (_array(subject.brain) == 0)).any()


def test_lesions_show(patient: PhantomSubject) -> None:
    lesions = _array(patient.lesions) > 0
    flair, t1w = _array(patient.flair), _array(patient.t1w)
    near = ndimage.binary_dilation(lesions, iterations=4) & ~ndimage.binary_dilation(lesions, iterations=2)
    around = flair[near & (_array(patient.brain) > 0)]
    assert np.median(flair[lesions]) > 1.2 * np.median(around)
    assert np.mean(flair[lesions] > np.median(around)) > 0.95
    on_t1w = _to_t1w(patient.lesions, patient, patient.t1w_to_flair)
    shell = ndimage.binary_dilation(on_t1w, iterations=2) & ~ndimage.binary_dilation(on_t1w)
    assert on_t1w.sum() > 200
    assert np.median(t1w[on_t1w]) < np.percentile(t1w[shell & (t1w > 0)], 75)


def test_motion_is_the_one_reported(patient: PhantomSubject) -> None:
    brain = _array(patient.t1w) > 0
    assert _dice(_to_t1w(patient.brain, patient, patient.t1w_to_flair), brain) > 0.97
    assert _dice(_to_t1w(patient.brain, patient, np.eye(4)), brain) < 0.96
    assert np.linalg.det(patient.t1w_to_flair) == pytest.approx(1)


def test_no_motion_no_tilt(still: PhantomSubject) -> None:
    assert np.array_equal(still.t1w_to_flair, np.eye(4))
    assert np.array_equal(np.abs(still.flair.affine[:3, :3]), np.diag(np.float32([1.2, 1.2, 4])))
    assert still.flair.get_data_dtype() == np.float32


def test_grids(patient: PhantomSubject, dataset: Path) -> None:
    for mask in (patient.lesions, patient.brain):
        assert mask.shape == patient.flair.shape
        assert np.array_equal(mask.affine, patient.flair.affine)
    assert patient.flair.header.get_zooms() == pytest.approx((1.2, 1.2, 4))
    assert patient.flair.get_data_dtype() == np.int16
    assert nib.aff2axcodes(patient.flair.affine) == tuple("LAS")
    assert np.abs(patient.flair.affine[:3, :3][~np.eye(3, dtype=bool)]).max() > 0.02  # oblique
    for name in ("T1w", "FLAIR"):
        image = nib.load(dataset / f"sub-01/ses-2/anat/sub-01_ses-2_{name}.nii.gz")
        assert nib.aff2axcodes(image.affine) == tuple("PSR")
        assert image.get_data_dtype() == np.float32
        assert np.allclose(image.get_qform(coded=False), image.get_sform(), atol=1e-3)
        assert image.header["qform_code"] == image.header["sform_code"] == 1


def test_stripped_background_is_zero(patient: PhantomSubject) -> None:
    assert np.array_equal(_array(patient.flair) != 0, _array(patient.brain) > 0)
    assert 1000 < _volume_ml(patient.brain) < 2000


@pytest.mark.parametrize("part", [".", "derivatives/truth"])
def test_dataset_is_valid_bids(dataset: Path, part: str) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    command = [str(validator), "--ignoreWarnings", "--format", "json", str(dataset / part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["issues"]["issues"] == []
    assert report["summary"]["subjects"] == ["01"]
    assert done.returncode == 0


def test_dataset_content(dataset: Path) -> None:
    assert (dataset / "participants.tsv").read_text() == "participant_id\tgroup\nsub-01\tpatient\n"
    truth = dataset / "derivatives/truth"
    assert json.loads((truth / "dataset_description.json").read_text())["DatasetLinks"] == {"raw": "../.."}
    for session, volume in (("ses-1", 4), ("ses-2", 75)):
        stem = truth / "sub-01" / session / "anat" / f"sub-01_{session}_space-FLAIR_label-WMH_mask"
        assert _volume_ml(nib.load(f"{stem}.nii.gz")) == pytest.approx(volume, rel=0.05)
        sidecar = json.loads(Path(f"{stem}.json").read_text())
        assert sidecar["Type"] == "Lesion"
        uri = sidecar["SpatialReference"]
        assert sidecar["Sources"] == [uri]
        assert (dataset / uri.removeprefix("bids:raw:")).is_file()


def test_specs_of_a_cohort() -> None:
    specs = make_specs(3, 2, seed=5, head=False)
    assert list(specs) == ["sub-01", "sub-02", "sub-03", "sub-04", "sub-05"]
    assert specs == make_specs(3, 2, seed=5, head=False)
    assert len({x.seed for x in specs.values()}) == 5
    assert [x.lesion_volume_ml > 0 for x in specs.values()] == [True, True, True, False, False]
    assert {x.lesion_volume_ml for x in make_specs(3, 0, lesion_volume_ml=7.0).values()} == {7.0}
    assert specs != make_specs(3, 2, seed=6, head=False)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--n-subjects", "1", "--n-controls", "0", "--no-head", "--lesion-volume"]
    assert main([str(tmp_path / "ds"), *arguments, "6"]) == 0
    mask = nib.load(tmp_path / "ds/derivatives/truth/sub-01/anat/sub-01_space-FLAIR_label-WMH_mask.nii.gz")
    assert _volume_ml(mask) == pytest.approx(6, rel=0.05)
    assert json.loads((tmp_path / "ds/sub-01/anat/sub-01_FLAIR.json").read_text())["SkullStripped"] is True
    assert main([str(tmp_path / "none"), *arguments, "600"]) == UsageError.exit_code
    assert "lesion_volume_ml" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_unwritable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotCreateError, match="file"):
        write_dataset(tmp_path / "file" / "ds", [SPEC])


def test_deepbet_finds_the_brain(tmp_path: Path) -> None:
    from deepbet import run_bet

    subject = make_subject(PhantomSpec(seed=0))
    corner = _array(subject.flair)[:10, :10]
    assert 0 < corner.std() < 0.1 * np.median(_array(subject.flair)[_array(subject.brain) > 0])
    truth = {
        "t1w": _to_t1w(subject.brain, subject, subject.t1w_to_flair),
        "flair": _array(subject.brain) > 0,
    }
    for name, expected in truth.items():
        scan, mask = tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_mask.nii.gz"
        getattr(subject, name).to_filename(scan)
        run_bet([str(scan)], mask_paths=[str(mask)], no_gpu=True)
        found = resample_from_to(nib.load(mask), getattr(subject, name), order=0).get_fdata() > 0.5
        assert _dice(found, expected) >= 0.90, name
