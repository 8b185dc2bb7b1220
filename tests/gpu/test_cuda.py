"""On a real GPU: the CPU's maps, memory that runs out, training in bfloat16, several processes on it, the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn import svm

from bids_wmh_uad.core.device import configure_torch
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_dense
from bids_wmh_uad.core.network.plan import Plan
from bids_wmh_uad.core.network.training import Trainer
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.anomaly import anomaly_map
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.core.svm.estimator import OneClassSVM
from bids_wmh_uad.core.svm.voxelwise_fit import fit_voxelwise
from bids_wmh_uad.models import load_model
from tests.unit.core.network.test_training import stripes
from tests.unit.train.training_run import make_controls

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU that torch sees: nothing was run on one"
)
ROOT = Path(__file__).parents[2]
SHAPE = (96, 96, 150)
"""More slices than a GPU takes at once."""
PARAMS = DetectionParameters(n_samples=500)
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _as_the_program_sets_it(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    configure_torch()


def head():
    """A ball of textured tissue with bright spots."""
    rng = np.random.default_rng(0)
    distance = sum((np.indices(SHAPE)[k] - n / 2) ** 2 / (n / 2) ** 2 for k, n in enumerate(SHAPE))
    mask = distance < 0.9
    flair = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2.0)
    flair = flair / flair.std() + 6.0 * (ndimage.gaussian_filter(rng.normal(size=SHAPE), 3.0) > 0.04)
    t1w = -0.5 * flair + 0.3 * rng.normal(size=SHAPE)
    return Scan((flair * mask).astype(np.float32), (t1w * mask).astype(np.float32), mask)


def score(device, name="directed"):
    """The map of the head by the shipped model; also called in processes that are new."""
    configure_torch()
    direction = np.linspace(-1, 1, 16, dtype=np.float32)
    model, params = load_model()[0], replace(PARAMS, score=name)
    return anomaly_map(model, head(), params, np.random.default_rng(0), device=device, direction=direction)


@pytest.fixture(scope="module")
def on_cpu():
    configure_torch()
    return score("cpu")


def assert_same(found, wanted):
    """Within the tolerance of the larger of 1 and the largest value."""
    assert np.abs(found - wanted).max() < TOLERANCE * max(1.0, np.abs(wanted).max())


@pytest.mark.parametrize("name", ["directed", "latent", "faithful"])
def test_the_gpu_makes_the_same_map(on_cpu, name):
    here = on_cpu if name == "directed" else score("cpu", name)
    there = score("cuda", name)
    assert (there.device, there.warnings) == ("cuda", ())
    assert_same(there.scores, here.scores)
    if here.evidence is not None:
        assert_same(there.evidence, here.evidence)


@pytest.mark.parametrize("encoder", ["compact", "wide"])
def test_dense_latents_are_the_same(encoder):
    model, scan = build_autoencoder(0, encoder=encoder).eval(), head()
    mask = scan.mask.copy()
    mask[..., 40:] = False
    here = embed_dense(model, scan.network_input(), mask)
    assert_same(embed_dense(model.cuda(), scan.network_input(), mask), here)


@contextmanager
def memory_limit(size):
    """So many bytes for torch's allocator, and no more."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_is_short_halves_the_slabs(on_cpu):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    score("cuda")
    with memory_limit((torch.cuda.max_memory_reserved() - before) // 3):
        there = score("cuda")
    assert there.device == "cuda"
    assert [warning.code for warning in there.warnings] == ["GPU_SLABS"]
    assert_same(there.scores, on_cpu.scores)


def test_without_any_memory_the_cpu_does_it(on_cpu):
    with memory_limit(0):
        there = score("cuda")
    assert there.device == "cpu"
    assert [warning.code for warning in there.warnings] == ["GPU_SLABS", "GPU_MEMORY"]
    np.testing.assert_array_equal(there.scores, on_cpu.scores)


HOG = """
import sys, torch
left = int(sys.argv[1])
torch.zeros(1, device="cuda")
free, _ = torch.cuda.mem_get_info()
blocks = [torch.empty(max(0, free - left), dtype=torch.uint8, device="cuda")]
print(torch.cuda.mem_get_info()[0], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("left", [900 << 20, 300 << 20, 16 << 20])
def test_a_gpu_that_others_have_filled_ends_no_session(on_cpu, left):
    """In a process of its own, whose libraries have no handles and workspaces yet."""
    with subprocess.Popen(
        [sys.executable, "-c", HOG, str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as hog:
        assert hog.stdout.readline()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            there = pool.submit(score, "cuda").result()
        hog.stdin.close()
    assert_same(there.scores, on_cpu.scores)


def test_two_processes_score_at_once(on_cpu):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for there in pool.map(score, ["cuda"] * 4):
            assert there.device == "cuda"
            assert_same(there.scores, on_cpu.scores)


def test_the_solver_agrees_with_libsvm():
    rng = np.random.default_rng(0)
    train, new = (rng.standard_normal((n, 16)).astype(np.float32) for n in (600, 1000))
    ours = OneClassSVM(nu=0.05, tol=1e-6, device="cuda").fit(train)
    exact = svm.OneClassSVM(nu=0.05, gamma=ours._gamma, tol=1e-10).fit(train)
    assert np.abs(ours.decision_function(new) - exact.decision_function(new)).max() < TOLERANCE


def test_voxelwise_models_are_the_same():
    rng = np.random.default_rng(0)
    latents, new = rng.standard_normal((40, 3000, 16), dtype=np.float32), rng.random((3000, 16), np.float32)
    mask, which = np.ones((3000, 1, 1), dtype=bool), torch.arange(3000)
    here, there = (
        fit_voxelwise(latents, mask, np.eye(4), nu=0.05, device=device)
        .on(device)
        .decision_function(torch.from_numpy(new).to(device), which.to(device))
        .cpu()
        .numpy()
        for device in ("cpu", "cuda")
    )
    assert_same(there, here)


@pytest.mark.parametrize("encoder", ["compact", "wide"])
def test_training_in_bfloat16_learns_what_float32_learns(encoder):
    errors, plan = {}, Plan(epochs=4, steps=30, lr=1e-2)
    for device, half in (("cpu", None), ("cuda", None), ("cuda", torch.bfloat16)):
        model = build_autoencoder(0, encoder=encoder).to(device)
        history = Trainer(model, plan, lambda step: stripes(step, 128), stripes(99, 128), half).run()
        errors[device, half] = history[-1].held_out.error
        assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
        assert history[-1].held_out.error < 0.6 * history[0].held_out.error
    wanted = errors["cpu", None]
    assert errors["cuda", None] == pytest.approx(wanted, rel=0.05)
    assert errors["cuda", torch.bfloat16] == pytest.approx(wanted, rel=0.15)


def test_two_processes_train_on_one_gpu_as_one_does(tmp_path):
    make_controls(tmp_path / "controls", 6)
    script = ["tests.unit.train.training_run", str(tmp_path / "controls")]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    losses = []
    for name, start in (("one", []), ("two", torchrun)):
        command = [sys.executable, "-m", *start, *script, str(tmp_path / name), "--device", "cuda"]
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        described = json.loads((tmp_path / name / "model" / "model.json").read_text())["training"]
        losses.append(list(described["held_out_losses"].values()))
    assert losses[1] == pytest.approx(losses[0], rel=0.1, abs=1e-4)


def test_the_program_on_a_gpu_gives_the_cpus_outputs(tmp_path, monkeypatch):
    """Raw scans to masks; workers are forked, and each opens the GPU by itself."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)
    phantom = ["bids_wmh_uad.phantom", str(tmp_path / "bids"), "--n-subjects", "1", "--n-controls", "0"]
    subprocess.run([sys.executable, "-m", *phantom, "--seed", "1"], check=True)
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        command = ["bids_wmh_uad", str(tmp_path / "bids"), str(out), "participant", "--nprocs", "2"]
        command += ["-w", str(tmp_path / f"work-{device}"), "--device", device]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    there, here = tmp_path / "cuda", tmp_path / "cpu"
    (sidecar,) = there.glob("sub-*/**/*desc-anomaly*.json")
    assert json.loads(sidecar.read_text())["Device"] == "cuda"
    anomaly, mask = (
        [np.asanyarray(nib.load(next(out.glob(f"sub-*/**/*{kind}.nii.gz"))).dataobj) for out in (here, there)]
        for kind in ("desc-anomaly_map", "label-WMH_mask")
    )
    # a brain's rim of a few voxels moves the registration, and so all that follows, by a little
    assert np.corrcoef(*(volume.ravel() for volume in anomaly))[0, 1] > 0.995
    assert (mask[0] != mask[1]).mean() < 1e-4
