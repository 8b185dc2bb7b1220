"""The graph of a session: the same doors whether preprocessing is made or read, and every output leaves by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from nipype.interfaces.base import isdefined

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.bids.derivatives import OUTPUTS
from bids_wmh_uad.bids.references import Reference
from bids_wmh_uad.config import Method, RunConfig, Running
from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.models import load_model, model_digest, save_decision, save_model
from bids_wmh_uad.workflows.control import init_control_wf
from bids_wmh_uad.workflows.preprocess import INPUT_FIELDS, OUTPUT_FIELDS
from bids_wmh_uad.workflows.reuse import Preprocessed
from bids_wmh_uad.workflows.session import init_session_wf


@pytest.fixture
def session(tmp_path: Path) -> Session:
    paths = [tmp_path / f"sub-1_{name}.nii.gz" for name in ("FLAIR", "T1w")]
    for path in paths:
        path.write_bytes(b"")
    return Session("1", None, *paths)


@pytest.fixture
def earlier(tmp_path: Path) -> Preprocessed:
    scaling = {name: {"mode": 1.0, "scale": 1.0} for name in INPUT_FIELDS}
    summary = tmp_path / f"sub-1_{OUTPUTS['summary']}"
    found = Preprocessed(
        summary, scaling, dict.fromkeys(INPUT_FIELDS, False), dict.fromkeys(INPUT_FIELDS, 0.0), 0.98
    )
    for name in OUTPUTS:
        found.path(name).write_bytes(b"")
    return found


def make_config(root: Path, model: Path) -> RunConfig:
    return RunConfig(
        root / "bids",
        root / "out",
        "participant",
        method=Method(model=str(model)),
        running=Running(work_dir=root / "work"),
    )


@pytest.mark.parametrize("reused", [False, True])
def test_the_graph_can_be_built(
    session: Session, earlier: Preprocessed, tmp_path: Path, model_dir: Path, reused: bool
) -> None:
    config = make_config(tmp_path, model_dir)
    graph = init_session_wf(session, config, model_digest(model_dir), earlier if reused else None)
    names = set(graph.list_node_names())
    assert ("preprocess_wf.reuse" in names) is reused
    assert ("preprocess_wf.n4_flair" in names) is not reused
    arriving = {
        target
        for _, _, edges in graph._graph.in_edges(graph.get_node("stage"), data=True)
        for _, target in edges["connect"]
    }
    # nothing is left unconnected but other spaces, for which nobody asked
    assert arriving == {*OUTPUTS, "sidecars", "figures", "figure_names"}


def test_candidates_are_judged_by_the_models_own_decision(session: Session, tmp_path: Path) -> None:
    model = save_model(build_autoencoder(0), tmp_path / "model", {})
    config = make_config(tmp_path, model)

    def decision(score: str) -> LesionDecision:
        chosen = replace(config, method=replace(config.method, score=score))
        graph = init_session_wf(session, chosen, "0")
        return LesionDecision(**graph.get_node("segment").inputs.decision)

    assert decision("directed") == LesionDecision()
    own = LesionDecision(intercept=-7.0, latent=tuple(float(k) for k in range(16)))
    save_decision(own, model, {})
    assert decision("directed") == own
    assert decision("brightness") == LesionDecision()  # no model is read


def test_steps_find_a_model_that_was_named_from_where_the_program_started(
    session: Session, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_dir.parent)
    graph = init_session_wf(session, make_config(tmp_path, Path(model_dir.name)), "0")
    monkeypatch.chdir(tmp_path)  # as each step does
    for step in ("score", "explain"):
        assert load_model(graph.get_node(step).inputs.model)
    assert load_model(graph.get_node("describe").inputs.method.model)


@pytest.mark.parametrize("reused", [False, True])
def test_a_controls_graph_can_be_built(
    session: Session, earlier: Preprocessed, tmp_path: Path, model_dir: Path, reused: bool
) -> None:
    lesions = ("label-free masks", Reference(earlier.path("mask"))) if reused else ("none", None)
    graph = init_control_wf(session, make_config(tmp_path, model_dir), lesions, earlier if reused else None)
    preprocess = graph.get_node("preprocess_wf")
    doors = [
        set(preprocess.get_node(name).outputs.copyable_trait_names()) for name in ("inputnode", "outputnode")
    ]
    assert doors == [set(INPUT_FIELDS), set(OUTPUT_FIELDS)]


def test_brightness_alone_has_no_step_of_the_network(session: Session, tmp_path: Path) -> None:
    config = make_config(tmp_path, tmp_path / "no-model-there")
    config = replace(config, method=replace(config.method, score="brightness", paradigm="voxel"))
    graph = init_session_wf(session, config, "")
    assert "explain" not in graph.list_node_names()
    assert not isdefined(graph.get_node("draw").inputs.sample)
    assert graph.get_node("describe").inputs.one_class == {}
    assert "auto-encoder" not in graph.visit_desc()
