"""The examples of the docstrings run, and every public estimator has one."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

import bids_wmh_uad

PACKAGE = Path(bids_wmh_uad.__file__).parent
EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]
ESTIMATORS = {
    "api.detect": ("detect",),
    "api.evaluate": ("evaluate",),
    "core.device": ("resolve_device",),
    "core.evaluation.agreement": ("bland_altman", "clustered_mean", "icc_agreement"),
    "core.evaluation.overlap": (
        "avd_percent", "dice", "h95_mm", "lesion_f1", "lesion_precision", "lesion_recall",
        "lesion_recall_by_size",
    ),
    "core.evaluation.ranking": ("Ranking",),
    "core.evaluation.threshold_free": ("aupro", "auroc", "average_precision", "best_dice"),
    "core.parameters": ("DetectionParameters",),
    "core.score.anomaly": ("anomaly_map",),
    "core.score.scan": ("Scan",),
    "core.network.autoencoder": ("SiameseAutoencoder", "build_autoencoder"),
    "core.network.embedding": ("DenseEncoder", "embed_dense", "embed_patches"),
    "core.svm.estimator": ("OneClassSVM",),
    "core.svm.kernel": ("KernelSum",),
    "core.svm.paradigms": ("Standardiser", "fit_patient", "fit_pooled"),
    "core.svm.voxelwise": ("VoxelwiseOneClassSVM",),
    "core.svm.voxelwise_fit": ("fit_voxelwise",),
    "models": ("load_model",),
}  # fmt: skip
"""Public estimators and functions, by module, that a reader may want to try."""
SECTIONS = ("Parameters", "Attributes", "Returns", "Raises", "See Also", "Notes", "References", "Examples")
"""The order of a docstring's sections, as in scikit-learn."""


def module_name(path):
    return ".".join(("bids_wmh_uad", *path.relative_to(PACKAGE).with_suffix("").parts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples write; one takes over what another left."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("path", EXAMPLES, ids=module_name)
def test_examples_run(path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(import_module(module_name(path)), optionflags=options)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("module", "name"), [(key, name) for key, names in ESTIMATORS.items() for name in names]
)
def test_estimators_show_how_they_are_used(module, name):
    lines = inspect.getdoc(getattr(import_module(f"bids_wmh_uad.{module}"), name)).splitlines()
    sections = [line for line, rule in pairwise(lines) if rule and set(rule) == {"-"}]
    assert sections == sorted(sections, key=SECTIONS.index)
    assert sections[0] == "Parameters"
    assert sections[-1] == "Examples"
    assert any(line.startswith(">>>") for line in lines)
