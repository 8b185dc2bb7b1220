"""The whole program on phantoms: good sessions are done, bad ones are said, and a rerun touches nothing."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bids import BIDSLayout, BIDSLayoutIndexer
from nilearn.datasets import load_mni152_template
from nilearn.image import load_img
from program import GOOD, IMAGES, Run, participant, save, undescribed_columns, validator_issues, wmh

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.derivatives import IN_SPACES
from bids_wmh_uad.config import SPACES, TEMPLATE, Method
from bids_wmh_uad.core.lesion.lobes import LOBES, OTHER
from bids_wmh_uad.errors import (
    EMPTY_IMAGE,
    EXIT_OK,
    EXIT_SESSION_FAILED,
    MISSING_FLAIR,
    NOT_3D_IMAGE,
    TRUNCATED_IMAGE,
)
from bids_wmh_uad.group.rethreshold import threshold_label
from bids_wmh_uad.imaging.registration import read_transform
from bids_wmh_uad.reports.methods import METHODS_FILES

if TYPE_CHECKING:
    from bids_wmh_uad.phantom import PhantomSubject

pytestmark = pytest.mark.slow
FIGURES = ("anomaly", "brain", "coreg", "histogram", "latents", "lesions", "norm", "patches")


def stamps(root: Path) -> dict[str, int]:
    """When each published file was written; logs and intermediate files apart."""
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] not in ("logs", "work")
    }


def test_some_sessions_failed_and_the_others_are_done(first: Run) -> None:
    assert first.code == EXIT_SESSION_FAILED, first.log
    for label in GOOD:
        summary = derivatives.read_summary(first.path(label, "summary"))
        assert summary["status"] == "done"
        assert summary["icv_ml"] > 500
        assert summary["registration_overlap"] > 0.9


def test_each_failure_names_the_file_and_a_remedy(first: Run, phantom: PhantomSubject) -> None:
    def file(subject: str, suffix: str) -> Path:
        return first.bids_dir / f"sub-{subject}/ses-1/anat/sub-{subject}_ses-1_{suffix}.nii.gz"

    start, remedy = TRUNCATED_IMAGE.split("{reason}")
    expected = {
        "03": [MISSING_FLAIR.format(where="sub-03/ses-1", t1w=file("03", "T1w"))],
        "04": [start.format(path=file("04", "FLAIR")), remedy],
        "05": [EMPTY_IMAGE.format(path=file("05", "FLAIR"), value=0.0)],
        "06": [NOT_3D_IMAGE.format(path=file("06", "FLAIR"), shape=(*phantom.flair.shape, 2))],
    }
    for subject, parts in expected.items():
        (line,) = [text for text in first.log.splitlines() if f"sub-{subject}/ses-1: FAILED" in text]
        assert all(part in line for part in parts), line
        reason = derivatives.read_summary(derivatives.failure_path(first.output_dir, subject, "1"))["reason"]
        assert all(part in reason for part in parts)
        assert line.endswith(reason)


def expected_files(run: Run, label: str) -> set[str]:
    session = run.session(label)
    paths = {run.path(label, output) for output in derivatives.OUTPUTS}
    paths |= {derivatives.sidecar_path(path) for path in paths if path.suffix in (".gz", ".txt")}
    figures = run.output_dir / f"sub-{session.subject}" / "figures"
    paths |= {figures / f"{session.prefix}_desc-{name}_FLAIR.svg" for name in FIGURES}
    paths.add(figures / f"{session.prefix}_desc-viewer_FLAIR.json")
    return {str(path.relative_to(run.output_dir)) for path in paths}


def test_the_output_is_what_the_contract_lists_and_no_more(first: Run) -> None:
    failures = {derivatives.failure_path(Path(), subject, "1") for subject in ("03", "04", "05", "06")}
    expected = {"dataset_description.json", ".bidsignore", "README.md", *METHODS_FILES}
    expected |= {f"sub-{number:02d}.html" for number in range(1, 7)}
    expected |= {str(path) for path in failures} | set.union(
        *(expected_files(first, label) for label in GOOD)
    )
    assert set(stamps(first.output_dir)) == expected


@pytest.mark.parametrize("label", GOOD)
@pytest.mark.parametrize("output", IMAGES)
def test_every_image_is_on_the_flairs_own_grid(first: Run, label: str, output: str) -> None:
    flair, image = nib.load(first.session(label).flair), nib.load(first.path(label, output))
    assert image.shape == flair.shape
    np.testing.assert_array_equal(image.affine, flair.affine)
    data = np.asanyarray(image.dataobj)
    assert np.isfinite(data).all()
    brain = np.asanyarray(nib.load(first.path(label, "brain")).dataobj) > 0
    if output not in ("flair", "t1w"):
        assert not data[~brain].any()
    assert image.get_data_dtype() == np.dtype(derivatives.IMAGE_TYPES[output])


@pytest.mark.parametrize("label", GOOD)
def test_every_sidecar_says_where_its_image_comes_from(first: Run, label: str) -> None:
    raw = f"bids:raw:{first.session(label).flair.relative_to(first.bids_dir)}"
    for output in (*IMAGES, "t1w_to_flair", "t1w_to_template", "flair_to_template"):
        sidecar = json.loads(derivatives.sidecar_path(first.path(label, output)).read_text())
        assert sidecar["Sources"]
        for source in sidecar["Sources"]:
            dataset, path = source.removeprefix("bids:").split(":")
            assert ({"raw": first.bids_dir, "": first.output_dir}[dataset] / path).is_file()
        if output in IMAGES:
            assert sidecar["SpatialReference"] == raw


@pytest.mark.parametrize("label", GOOD)
def test_the_summary_agrees_with_the_images(first: Run, label: str) -> None:
    summary = derivatives.read_summary(first.path(label, "summary"))
    image = nib.load(first.path(label, "lesions"))
    labels = np.asanyarray(image.dataobj)
    volume = (labels > 0).sum() * abs(np.linalg.det(image.affine)) / 1000
    assert summary["wmh_volume_ml"] == pytest.approx(volume, abs=1e-3)
    assert summary["lesion_count"] == labels.max() == len(pd.read_csv(first.path(label, "table"), sep="\t"))
    mask, probability, anomaly = (
        np.asanyarray(nib.load(first.path(label, name)).dataobj)
        for name in ("mask", "probability", "anomaly")
    )
    np.testing.assert_array_equal(mask, labels > 0)
    assert (anomaly[mask > 0] >= summary["threshold"]["value"]).all()
    accept = summary["threshold"]["accept"]
    assert (probability[mask > 0] >= 0.499 * accept).all()
    assert summary["volume_ml_lower"] <= summary["wmh_volume_ml"] <= summary["volume_ml_upper"]
    rejected = np.asanyarray(nib.load(first.path(label, "rejected")).dataobj)
    table = pd.read_csv(first.path(label, "rejected_table"), sep="\t")
    assert summary["rejected_count"] == rejected.max() == len(table)
    assert not (mask.astype(bool) & (rejected > 0)).any()
    assert (table["probability"] < accept).all()
    assert table["reason"].notna().all()


def test_the_order_of_storage_changes_next_to_nothing(first: Run) -> None:
    maps = []
    for label in GOOD:
        image = nib.as_closest_canonical(nib.load(first.path(label, "anomaly")))
        maps.append(np.asanyarray(image.dataobj))
    both = (maps[0] > 0) & (maps[1] > 0)
    assert np.corrcoef(maps[0][both], maps[1][both])[0, 1] > 0.99


def test_the_transforms_compose(first: Run) -> None:
    from bids_wmh_uad.imaging.registration import _read_itk

    pull = {name: _read_itk(str(first.path("sub-01", name))) for name in
            ("t1w_to_flair", "t1w_to_template", "flair_to_template")}  # fmt: skip
    composed = pull["t1w_to_flair"] @ pull["flair_to_template"]
    np.testing.assert_allclose(composed, pull["t1w_to_template"], atol=1e-3)


def test_the_registration_finds_the_phantoms_motion(first: Run, phantom: PhantomSubject) -> None:
    from bids_wmh_uad.imaging.registration import _read_itk

    found = np.linalg.inv(_read_itk(str(first.path("sub-01", "t1w_to_flair"))))
    corners = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-90, 60) for z in (-40, 60)], float).T
    error = np.linalg.norm(((found - phantom.t1w_to_flair) @ corners)[:3], axis=0)
    assert error.max() < 2.0  # mm; the voxels are 2.5 and 5 mm


def test_pybids_finds_what_the_docs_list(first: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text(encoding="utf-8")
    section = page.partition("## Files of a session")[2].partition("\n### ")[0]
    endings = re.findall(r"^\| `([^`]+\.[a-z.]+)` \|", section, re.MULTILINE)
    assert set(endings) == set(derivatives.OUTPUTS.values())
    expected = {f"{first.session(label).prefix}_{ending}" for label in GOOD for ending in endings}
    expected |= {
        derivatives.sidecar_path(Path(name)).name for name in expected if name.endswith((".gz", ".txt"))
    }
    expected |= {derivatives.failure_path(Path(), subject, "1").name for subject in ("03", "04", "05", "06")}
    indexer = BIDSLayoutIndexer(validate=False, ignore=[re.compile("^/(work|logs)(/|$)")])
    layout = BIDSLayout(first.output_dir, is_derivative=True, indexer=indexer)
    found = [Path(path) for path in layout.files]
    assert {path.name for path in found if path.parent.name == "anat"} == expected
    masks = [image.filename for image in layout.get(suffix="mask", extension=".nii.gz")]
    own = {
        f"{first.session(label).prefix}_{derivatives.OUTPUTS[name]}"
        for label in GOOD
        for name in ("brain", "mask")
    }
    assert sorted(masks) == sorted(own)
    tables = layout.get(suffix="dseg", extension=".tsv")
    assert {table.entities["desc"] for table in tables} == {"lesions", "rejected", "regions", "lobes"}


@pytest.mark.parametrize("label", GOOD)
def test_lobes_and_their_table_name_the_same_labels(first: Run, label: str) -> None:
    summary = derivatives.read_summary(first.path(label, "summary"))
    for name in ("regions", "lobes"):
        table = pd.read_csv(first.path(label, f"{name}_table"), sep="\t")
        known = np.unique(nib.load(first.path(label, name)).dataobj)
        assert set(known) - {0} <= set(table["index"])
        sidecar = json.loads(derivatives.sidecar_path(first.path(label, name)).read_text())
        assert sidecar["Labels"] == dict(zip(table["name"], table["index"], strict=True))
    lobes = [name for name in summary if name.startswith("wmh_volume_ml_") and name[14:] in (*LOBES, OTHER)]
    assert len(lobes) == len(LOBES) + 1
    assert sum(summary[name] for name in lobes) == pytest.approx(summary["wmh_volume_ml"], abs=1e-3)
    lesions = pd.read_csv(first.path(label, "table"), sep="\t")
    assert set(lesions["lobe"]) <= {*LOBES, OTHER}
    assert summary["fazekas_periventricular_estimate"] in (0, 1, 2, 3)
    assert (summary["fazekas_periventricular_estimate"] > 0) == (summary["lesion_count_periventricular"] > 0)


def test_the_official_validator_has_no_error_and_no_warning(first: Run) -> None:
    assert validator_issues(first.output_dir) == []


def test_the_log_holds_the_settings_and_the_stages(first: Run) -> None:
    (log,) = (first.output_dir / "logs").iterdir()
    names = {path.name for path in log.iterdir()}
    assert {"config.toml", "bids-wmh-uad.log", "stages.tsv"} <= names
    assert {"read_flair", "score", "publish"} <= set(pd.read_csv(log / "stages.tsv", sep="\t")["stage"])
    assert sum(name.startswith("crash-") for name in names) == 3  # the session without FLAIR never began


def test_the_raw_data_are_untouched(first: Run) -> None:
    images = {path.name.split("_")[-1] for path in first.bids_dir.rglob("*") if path.is_file()}
    assert images == {"T1w.nii.gz", "FLAIR.nii.gz", "description.json"}


# The tests below run the program again on the first run's output, in this order.


def good(run: Run) -> tuple[str, ...]:
    return ("--participant-label", *sorted(run.session(label).subject for label in GOOD))


def test_a_second_run_touches_nothing(first: Run, model_dir: Path) -> None:
    before = stamps(first.output_dir)
    again = participant(first.bids_dir, first.output_dir, model_dir, *good(first))
    assert again.code == EXIT_OK, again.log
    assert {
        name: stamp for name, stamp in stamps(first.output_dir).items() if not name.endswith(".html")
    } == {name: stamp for name, stamp in before.items() if not name.endswith(".html")}


def test_a_lost_file_comes_back_byte_for_byte_and_alone(first: Run, model_dir: Path) -> None:
    lost = first.path("sub-01", "mask")
    content, before = lost.read_bytes(), stamps(first.output_dir)
    lost.unlink()
    again = participant(first.bids_dir, first.output_dir, model_dir, *good(first))
    assert again.code == EXIT_OK, again.log
    assert lost.read_bytes() == content
    after = stamps(first.output_dir)
    changed = {name for name in after if after[name] != before[name] and not name.endswith(".html")}
    assert changed == {str(lost.relative_to(first.output_dir))}


def test_further_spaces_are_added_and_nothing_else_is_done(first: Run, model_dir: Path) -> None:
    before, logs = stamps(first.output_dir), set((first.output_dir / "logs").iterdir())
    options = ("--output-spaces", *SPACES[1:], *good(first))
    again = participant(first.bids_dir, first.output_dir, model_dir, *options)
    assert again.code == EXIT_OK, again.log
    images = [first.path(label, name, space) for label, name, space in product(GOOD, IN_SPACES, SPACES[1:])]
    made = {
        str(path.relative_to(first.output_dir)) for path in (*images, *map(derivatives.sidecar_path, images))
    }
    after = stamps(first.output_dir)
    changed = {name for name in after if after[name] != before.get(name) and not name.endswith(".html")}
    assert changed - set(METHODS_FILES) == made  # the methods text names the spaces
    assert "the T1w image and the template" in (first.output_dir / "CITATION.md").read_text()
    (log,) = set((first.output_dir / "logs").iterdir()) - logs
    stages = pd.read_csv(log / "stages.tsv", sep="\t")
    steps = {f"{step}_{space}" for step in ("to", "stage") for space in SPACES[1:]}
    assert set(stages["stage"]) == {*steps, "publish"}
    assert validator_issues(first.output_dir) == []
    layout = BIDSLayout(first.output_dir, validate=False, is_derivative=True)
    for space, suffix in product(SPACES[1:], ("mask", "probseg")):
        found = layout.get(space=space, suffix=suffix, label="WMH", extension=".nii.gz")
        assert {Path(file.path) for file in found} == {
            path for path in images if f"space-{space}_label-WMH_{suffix}" in path.name
        }
    for label, space in product(GOOD, SPACES[1:]):
        mask = load_img(first.path(label, "mask", space))
        grid = nib.load(first.session(label).t1w) if space == "T1w" else load_mni152_template(resolution=1)
        assert mask.shape == grid.shape
        np.testing.assert_allclose(mask.affine, grid.affine, atol=1e-5)
        matrix = read_transform(first.path(label, "flair_to_template"))
        growth = abs(np.linalg.det(matrix)) if space == TEMPLATE else 1.0
        own = load_img(first.path(label, "mask"))
        volumes = [
            np.asanyarray(image.dataobj).sum() * abs(np.linalg.det(image.affine)) for image in (own, mask)
        ]
        assert volumes[1] == pytest.approx(volumes[0] * growth, rel=0.1)


def test_a_file_packed_anew_is_the_same_scan(first: Run, model_dir: Path) -> None:
    """Other bytes, same voxels: the cached steps hold, and the session is still finished."""
    flair = first.session("sub-01").flair
    mask = first.path("sub-01", "mask")
    content = mask.read_bytes()
    shared = {path: path.read_bytes() for path in (flair, first.path("sub-01", "summary"))}
    image = nib.load(flair)
    image.header["descrip"] = b"anonymised"
    try:
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), flair)
        again = participant(first.bids_dir, first.output_dir, model_dir, "--participant-label", "01")
    finally:
        for path, original in shared.items():  # other tests look at the same run
            path.write_bytes(original)
    assert again.code == EXIT_OK, again.log
    assert mask.read_bytes() == content


def test_the_group_level_reads_what_is_there(first: Run, phantom: PhantomSubject, tmp_path: Path) -> None:
    anat = tmp_path / "ref" / "sub-01" / "anat"
    save(phantom.lesions, anat / "sub-01_space-FLAIR_label-WMH_mask.nii.gz")
    ran = wmh(tmp_path / "absent", first.output_dir, "group", "--reference", tmp_path / "ref")
    assert ran.code == EXIT_OK, ran.log
    table = pd.read_csv(first.output_dir / "group_wmh.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table["status"]) == ["done", "done", *["failed"] * 4]
    assert [value == "n/a" for value in table["wmh_volume_ml"]] == [False, False, *[True] * 4]
    assert all(text != "n/a" for text in table["reason"][2:])
    evaluation = pd.read_csv(first.output_dir / "group_evaluation.tsv", sep="\t")
    assert list(evaluation["participant_id"]) == ["sub-01"]
    assert evaluation["ap"][0] > evaluation["reference_volume_ml"][0] / float(table["icv_ml"][0])  # chance
    assert 0 <= evaluation["dice"][0] <= evaluation["best_dice"][0] + 1e-6 <= 1 + 1e-6
    description = json.loads((first.output_dir / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"raw": first.bids_dir.as_uri()}
    again = wmh(tmp_path / "absent", first.output_dir, "group", "--threshold", Method().threshold)
    assert again.code == EXIT_OK, again.log
    own = first.path("sub-01", "mask")
    same = own.with_name(own.name.replace("_mask", f"_desc-{threshold_label(Method().threshold)}_mask"))
    np.testing.assert_array_equal(nib.load(same).dataobj, nib.load(own).dataobj)
    assert validator_issues(first.output_dir) == []
    assert undescribed_columns(first.output_dir) == set()


def test_the_same_input_and_seed_give_the_same_bytes(first: Run, model_dir: Path, tmp_path: Path) -> None:
    options = ("--participant-label", "01", "--output-spaces", "T1w")
    fresh = participant(first.bids_dir, tmp_path / "out", model_dir, *options)
    assert fresh.code == EXIT_OK, fresh.log
    outputs = [(output, "FLAIR") for output in (*IMAGES, "table", "t1w_to_flair", "flair_to_template")]
    for output in (*outputs, *((output, "T1w") for output in IN_SPACES)):
        assert fresh.path("sub-01", *output).read_bytes() == first.path("sub-01", *output).read_bytes(), (
            output
        )
