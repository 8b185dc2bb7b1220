"""Probability and mask in other spaces: where they land, what they weigh, what a rerun does, and that nobody counts them twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.references import find_reference
from bids_wmh_uad.bids.sidecars import SPACE_TRANSFORMS, TEMPLATE_URL
from bids_wmh_uad.config import SPACES, TEMPLATE, Method, RunConfig, Running
from bids_wmh_uad.errors import EXIT_OK
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.imaging import registration
from bids_wmh_uad.imaging.templates import template
from bids_wmh_uad.interfaces.outputs import MoveToSpace
from bids_wmh_uad.participant.run import _is_finished, _session_graphs
from bids_wmh_uad.workflows.session import init_session_wf

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST = ""
OTHERS = SPACES[1:]
FLAIR_AFFINE = np.array([[1, 0, 0, -20], [0, 1, 0, -30], [0, 0, 3, -12], [0, 0, 0, 1.0]])
SHAPE = (40, 44, 14)


def turn(degrees: float) -> NDArray[np.float64]:
    """A rotation about the third axis and a shift, as a registration finds them."""
    a = np.deg2rad(degrees)
    return np.array(
        [[np.cos(a), -np.sin(a), 0, 1.3], [np.sin(a), np.cos(a), 0, -0.7], [0, 0, 1, 0.4], [0, 0, 0, 1]]
    )


T1W_TO_FLAIR = turn(4.0)
TO_TEMPLATE = turn(-3.0) @ np.diag([1.1, 1.05, 1.2, 1.0])


def lesions() -> NDArray[np.uint8]:
    """One that fills a dozen voxels, and small ones of one and two."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[14:20, 20:26, 5:8] = 1
    for x, y, z in ((8, 10, 4), (28, 12, 9), (30, 33, 6), (10, 30, 8), (22, 8, 5), (33, 22, 3)):
        mask[x, y, z] = 1
    mask[26:28, 35, 8] = 1
    return mask


@pytest.fixture
def session(tmp_path: Path) -> Session:
    anat = tmp_path / "bids" / "sub-1" / "anat"
    anat.mkdir(parents=True)
    paths = [anat / f"sub-1_{name}.nii.gz" for name in ("FLAIR", "T1w")]
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), FLAIR_AFFINE), paths[0])
    t1w = nib.Nifti1Image(np.zeros((60, 50, 50), np.int16), np.array(
        [[0, 0, -1, 28], [1, 0, 0, -38], [0, -1, 0, 32], [0, 0, 0, 1.0]]))  # fmt: skip
    t1w.set_qform(t1w.affine, code=1)
    t1w.set_sform(t1w.affine, code=4)
    nib.save(t1w, paths[1])
    return Session("1", None, *paths)


@pytest.fixture
def config(tmp_path: Path, session: Session) -> RunConfig:
    """A run on a session that is finished in the FLAIR's space."""
    out = tmp_path / "out"
    for name in derivatives.OUTPUTS:
        path = derivatives.output_path(out, session, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        if path.suffix in (".gz", ".txt"):
            derivatives.sidecar_path(path).write_text("{}")
    images = {"mask": lesions(), "probability": (0.9 * lesions()).astype(np.float32)}
    for name, data in images.items():
        nib.save(nib.Nifti1Image(data, FLAIR_AFFINE), derivatives.output_path(out, session, name))
    for name, matrix in {"t1w_to_flair": T1W_TO_FLAIR, "flair_to_template": TO_TEMPLATE}.items():
        derivatives.output_path(out, session, name).write_text(registration.itk_text(matrix))
    summary = {"signature": derivatives.signature(session, Method(score="brightness"), DIGEST)}
    derivatives.output_path(out, session, "summary").write_bytes(dump_json(summary))
    running = Running(work_dir=tmp_path / "work")
    return RunConfig(
        tmp_path / "bids", out, "participant", method=Method(score="brightness"), running=running
    )


def asking(config: RunConfig, *spaces: str) -> RunConfig:
    return replace(config, running=replace(config.running, output_spaces=(SPACES[0], *spaces)))


def run(session: Session, config: RunConfig) -> None:
    (graph,) = _session_graphs([session], config, DIGEST)
    graph.base_dir = str(config.running.work_dir)
    graph.run()


def stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def world_volume(path: Path) -> float:
    image = nib.load(path)
    return float((np.asanyarray(image.dataobj) > 0).sum() * abs(np.linalg.det(image.affine)))


# ------------------------------------------------------------------ names


def test_only_the_space_differs_in_the_names(session: Session) -> None:
    names = [
        derivatives.output_path(Path(), session, name, space).name
        for space in OTHERS
        for name in derivatives.IN_SPACES
    ]
    assert names == [
        f"sub-1_space-{space}_label-WMH_{suffix}.nii.gz"
        for space in ("T1w", "MNI152NLin2009aSym")
        for suffix in ("probseg", "mask")
    ]


# ------------------------------------------------------------------ a finished session


@pytest.mark.usefixtures("own_directory")
def test_a_further_space_costs_only_itself(session: Session, config: RunConfig) -> None:
    assert _is_finished(session, config, DIGEST)
    before = stamps(config.output_dir)
    for asked in (("T1w",), ("MNI152NLin2009aSym",)):  # the second run leaves the first one's
        chosen = asking(config, *asked)
        assert not _is_finished(session, chosen, DIGEST)
        run(session, chosen)
        assert _is_finished(session, chosen, DIGEST)
        after = stamps(config.output_dir)
        images = [
            derivatives.output_path(config.output_dir, session, name, *asked)
            for name in derivatives.IN_SPACES
        ]
        assert after.keys() - before.keys() == {*images, *map(derivatives.sidecar_path, images)}
        assert {path: after[path] for path in before} == before
        before = after
    assert _is_finished(session, asking(config, *OTHERS), DIGEST)
    assert _is_finished(session, config, DIGEST)


@pytest.mark.usefixtures("own_directory")
def test_what_was_made_once_belongs_to_every_later_result(
    session: Session, config: RunConfig, model_dir: Path
) -> None:
    run(session, asking(config, "T1w"))
    # a run with other settings does not ask for the space: it makes it anew, or it would be of the old result
    other = replace(config, method=Method(model=str(model_dir)))
    names = init_session_wf(session, other, "0").list_node_names()
    assert "spaces_wf.stage_T1w" in names
    assert not any("stage_MNI" in name for name in names)
    derivatives.output_path(config.output_dir, session, "mask", "T1w").unlink()
    assert not _is_finished(session, config, DIGEST)  # the half that is left is completed


@pytest.mark.usefixtures("own_directory")
def test_images_lie_where_the_transforms_say_on_the_spaces_own_grid(
    session: Session, config: RunConfig
) -> None:
    run(session, asking(config, *OTHERS))
    grids = {"T1w": nib.load(session.t1w), TEMPLATE: template("T1w")}
    moves = {"T1w": np.linalg.inv(T1W_TO_FLAIR), TEMPLATE: TO_TEMPLATE}
    centre = np.array([*(np.argwhere(lesions()).mean(axis=0)), 1.0])
    for space, grid in grids.items():
        for name in derivatives.IN_SPACES:
            image = nib.load(derivatives.output_path(config.output_dir, session, name, space))
            assert image.shape == grid.shape
            for form in ("qform", "sform"):
                (expected, code), (found, own) = (
                    getattr(each, f"get_{form}")(coded=True) for each in (grid, image)
                )
                np.testing.assert_allclose(found, expected, atol=1e-5)
                assert own == code
            assert image.get_data_dtype() == np.dtype(derivatives.IMAGE_TYPES[name])
            data = np.asanyarray(image.dataobj)
            assert set(np.unique(data)) == {0, 1} if name == "mask" else data.max() <= 0.9 + 1e-6
            where = np.average(np.argwhere(data > 0), axis=0, weights=data[data > 0])
            expected = moves[space] @ FLAIR_AFFINE @ centre
            np.testing.assert_allclose((image.affine @ [*where, 1])[:3], expected[:3], atol=0.5)


@pytest.mark.usefixtures("own_directory")
def test_the_mask_keeps_its_volume_and_its_smallest_lesions(session: Session, config: RunConfig) -> None:
    run(session, asking(config, "T1w"))
    mask, probability = (
        derivatives.output_path(config.output_dir, session, name, "T1w") for name in ("mask", "probability")
    )
    before = world_volume(derivatives.output_path(config.output_dir, session, "mask"))
    assert world_volume(mask) == pytest.approx(before, rel=0.05)
    moved = np.asanyarray(nib.load(mask).dataobj)
    to_t1w = np.linalg.inv(nib.load(mask).affine) @ np.linalg.inv(T1W_TO_FLAIR) @ FLAIR_AFFINE
    for voxel in np.argwhere(lesions()):
        x, y, z = np.rint((to_t1w @ [*voxel, 1])[:3]).astype(int)
        assert moved[x, y, z] == 1
    # what is left of them in a map that was cut at one half
    cut = np.asanyarray(nib.load(probability).dataobj) >= 0.5
    assert cut.sum() < 0.9 * moved.sum()


@pytest.mark.usefixtures("own_directory")
def test_sidecars_say_where_they_come_from_and_on_what_they_lie(session: Session, config: RunConfig) -> None:
    run(session, asking(config, *OTHERS))
    references = {"T1w": "bids:raw:sub-1/anat/sub-1_T1w.nii.gz", TEMPLATE: TEMPLATE_URL}
    for space, reference in references.items():
        for name in derivatives.IN_SPACES:
            path = derivatives.output_path(config.output_dir, session, name, space)
            sidecar = json.loads(derivatives.sidecar_path(path).read_text())
            assert sidecar["SpatialReference"] == reference
            assert sidecar.get("Template") == (TEMPLATE if space == TEMPLATE else None)
            assert sidecar["Sources"] == [
                derivatives.derivative_uri(session, source) for source in (name, SPACE_TRANSFORMS[space])
            ]
            assert ("nearest" in sidecar["Description"]) is (name == "mask")
            assert ("linearly" in sidecar["Description"]) is (name == "probability")


def test_the_methods_text_names_the_spaces(session: Session, config: RunConfig) -> None:
    texts = []
    for spaces in ((), ("T1w",), OTHERS):
        (graph,) = _session_graphs([session], asking(config, *spaces), DIGEST)
        texts.append(" ".join(graph.visit_desc().split()))
    assert "grid of" not in texts[0]
    assert "to the grid of the T1w image, each in one" in texts[1]
    assert "to the grid of the T1w image and the template, each in one" in texts[2]
    assert texts[2].startswith(texts[0])  # a session that only lacks a space is described as wholly


def test_whole_and_finished_sessions_give_the_same_images(
    tmp_path: Path, session: Session, config: RunConfig
) -> None:
    """Both graphs move what lies on the FLAIR's own grid, through the transforms' files."""
    made: dict[str, Any] = {}
    for name in ("mask", "probability", "t1w_to_flair"):
        made[name] = str(derivatives.output_path(config.output_dir, session, name))
    node = MoveToSpace(
        t1w=str(session.t1w),
        transform=made["t1w_to_flair"],
        mask=made["mask"],
        probability=made["probability"],
    )
    (tmp_path / "node").mkdir()
    found = node.run(cwd=str(tmp_path / "node")).outputs
    run(session, asking(config, "T1w"))
    for name in derivatives.IN_SPACES:
        published = nib.load(derivatives.output_path(config.output_dir, session, name, "T1w"))
        np.testing.assert_array_equal(published.dataobj, nib.load(getattr(found, name)).dataobj)
    whole = init_session_wf(session, asking(replace(config, output_dir=tmp_path / "new"), "T1w"), DIGEST)
    arriving = [edge["connect"] for *_, edge in whole._graph.in_edges(whole.get_node("spaces_wf"), data=True)]
    assert {source for edges in arriving for source, _ in edges} == {
        *derivatives.IN_SPACES,
        *SPACE_TRANSFORMS.values(),
    }


# ------------------------------------------------------------------ who reads masks


@pytest.mark.usefixtures("own_directory")
def test_the_flairs_mask_is_the_sessions_reference(session: Session, config: RunConfig) -> None:
    run(session, asking(config, *OTHERS))
    found = find_reference(config.output_dir, "sub-1", "n/a")
    assert found is not None
    assert found.path == derivatives.output_path(config.output_dir, session, "mask")


def test_the_group_level_counts_each_session_once(tmp_path: Path) -> None:
    from cohorts import config as group_config
    from cohorts import reference_path, save, truth_mask, write_session

    from bids_wmh_uad.group import run as group

    tables = []
    for name in ("without", "with"):
        out = tmp_path / name
        summary = write_session(out, "1", "2")
        if name == "with":
            for space in OTHERS:
                start = str(summary).removesuffix(derivatives.OUTPUTS["summary"])
                for suffix in ("mask", "probseg"):
                    save(Path(f"{start}space-{space}_label-WMH_{suffix}.nii.gz"), 1 - truth_mask())
        save(reference_path(tmp_path / "ref", "1", "2"), truth_mask())
        assert group.run_group(group_config(out, reference=tmp_path / "ref")) == EXIT_OK
        tables.append({path.name: path.read_bytes() for path in out.glob("group_*")})
    assert tables[0] == tables[1]
    assert tables[0]["group_wmh.tsv"].count(b"\n") == 2
