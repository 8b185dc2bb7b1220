"""The benchmark that learns the lesion decision: its latents are those that the program judges by."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage
from scripts import load_benchmark

from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.network.embedding import embed_dense
from bids_wmh_uad.core.score.latent import AnomalyMap
from bids_wmh_uad.models import load_model

SHAPE = (30, 24, 6)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_benchmark("decision")


@pytest.mark.parametrize("zooms", [(0.9, 0.9, 3.0), (-1.0, -1.0, 1.0), (0.7, -0.7, 0.8)])
def test_latents_of_candidates_are_those_of_the_programs_evidence(script: ModuleType, zooms):
    rng = np.random.default_rng(0)
    flair, t1w = ndimage.gaussian_filter(rng.normal(size=(2, *SHAPE)), (0, 1, 1, 1)).astype(np.float32) * 5
    mask = np.zeros(SHAPE, bool)
    mask[3:-3, 3:-3, 1:-1] = True
    affine = np.diag([*zooms, 1.0])
    tissue = Tissue(flair, t1w, mask, np.zeros(SHAPE, np.float32))
    case = script.Case("a", "phantom", tissue, mask, mask, np.zeros(SHAPE, np.uint8), affine)
    model, direction = load_model("default")[0], rng.normal(size=16).astype(np.float32)
    scan = case.scan
    scored = scan.mask & (scan.flair_z > 0)
    evidence = np.zeros(scan.mask.shape, np.float32)
    evidence[scored] = embed_dense(model, scan.network_input(), scored) @ direction
    found = AnomalyMap(np.where(scored, scan.flair_z, np.float32(0)), "cpu", (), evidence)
    own = case.own(found)
    there = np.flatnonzero(own.scores)
    top = [there[:8], there[100:103]]  # one candidate has fewer voxels than are asked
    latents = script.latents_of(case, found, top, model)
    assert np.isnan(latents[..., 0]).sum(axis=1).tolist() == [0, 5]
    expected = [own.evidence.flat[voxels].mean() for voxels in top]
    np.testing.assert_allclose(np.nanmean(latents, axis=1) @ direction, expected, rtol=1e-4, atol=1e-4)


def test_each_person_may_be_judged_by_an_encoder_of_its_own(script: ModuleType):
    rng = np.random.default_rng(0)
    group = np.repeat(["phantom", *script.PERSONS], 120)
    lesion, real = rng.random(group.size) < 0.5, (group != "phantom") & (np.arange(group.size) % 2 == 0)
    noise = rng.normal(size=(2, group.size, 1, 4)).astype(np.float32)
    knows, knows_not = noise[0] + 2 * lesion[:, None, None], noise[1]
    evidence = rng.normal(size=(group.size, len(script.NAMES)))
    found = script.Candidates(group, real, evidence, lesion, {"knows": knows, "knows not": knows_not})

    def auc(encoders) -> float:
        return script.judged(found, script.NAMES, encoders)["auc"]

    assert auc(dict.fromkeys(script.PERSONS, "knows")) == auc("knows") > 0.9
    mixed = dict.fromkeys(script.PERSONS, "knows") | {"P14": "knows not"}
    assert auc("knows not") < auc(mixed) < auc("knows")


def test_people_are_beside_the_phantoms_of_the_shipped_model() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert f"build/controls {load_benchmark('people').PHANTOMS}\n" in makefile
