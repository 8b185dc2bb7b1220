"""From controls to a model: killed and resumed, in one process and in two, held out, reported."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bids_wmh_uad import errors
from bids_wmh_uad.models import load_model
from bids_wmh_uad.train import learning
from bids_wmh_uad.train.checkpoints import CHECKPOINT
from bids_wmh_uad.train.launch import Launch, Meeting, own_device, read_launch
from bids_wmh_uad.train.learning import held_out_labels, learn
from tests.unit.train.training_run import make_config, make_controls

SCRIPT = [sys.executable, "-m", "tests.unit.train.training_run"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    return make_controls(tmp_path_factory.mktemp("controls"), 6)


@pytest.fixture(scope="module")
def uninterrupted(controls, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run(controls, out)
    return out


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_ET": "1"} | more


def run(controls, out, *options, **more):
    folder = next(iter(controls.values())).parent
    command = [*SCRIPT, str(folder), str(out), *options]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def train_here(controls, out, **options):
    learn(controls, make_config(out, **options), Meeting(Launch()), torch.device("cpu"))
    return out / "model"


def model_bytes(out):
    return (out / "model" / "model.safetensors").read_bytes()


def losses(out):
    described = json.loads((out / "model" / "model.json").read_text())["training"]
    return [value for part in ("losses", "held_out_losses") for value in described[part].values()]


def test_killed_in_the_middle_and_resumed_gives_the_same_bytes(controls, uninterrupted, tmp_path):
    folder = next(iter(controls.values())).parent
    checkpoint = tmp_path / "model" / CHECKPOINT
    process = subprocess.Popen(
        [*SCRIPT, str(folder), str(tmp_path)], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    )
    try:
        while not checkpoint.is_file():
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "model" / "model.json").exists()
    assert "going on after" in run(controls, tmp_path, "--resume")
    assert model_bytes(tmp_path) == model_bytes(uninterrupted)
    assert losses(tmp_path) == losses(uninterrupted)
    assert not checkpoint.exists()


@pytest.mark.parametrize("objective", ["siamese", "ocsvm-guided"])
def test_two_processes_train_as_one_with_the_same_batch(controls, tmp_path, objective):
    """Real processes, started as torchrun does, that meet over Gloo."""
    options = ["--objective", objective]
    run(controls, tmp_path / "one", *options)
    folder = next(iter(controls.values())).parent
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "tests.unit.train.training_run", str(folder), str(tmp_path / "two"), *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/3") == 1  # the second process is silent
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0.02, atol=0.002)


def test_slurm_steps_are_recognised_and_job_scripts_are_not():
    step = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
    assert read_launch(step) == Launch(3, 4, 1)
    assert read_launch({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Launch()
    assert read_launch(step | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == Launch(1, 2, 1)
    assert read_launch({"RANK": "0", "WORLD_SIZE": "1"}) == Launch()
    with pytest.raises(errors.UsageError, match="RANK: 'one' is not valid"):
        read_launch({"RANK": "one", "WORLD_SIZE": "2"})


def test_more_processes_than_gpus_share_them(monkeypatch):
    """Also where Slurm shows each process of a machine its own GPU alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [str(own_device("auto", Launch(rank, 3, rank))) for rank in range(3)]
    assert found == ["cuda:0", "cuda:1", "cuda:0"]
    assert str(own_device("cuda:1", Launch(0, 2, 0))) == "cuda:1"
    assert str(own_device("cpu", Launch(1, 2, 1))) == "cpu"


def test_several_nodes_need_an_address(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(errors.UsageError) as caught:
        Meeting(Launch(0, 2, 0))
    assert str(caught.value) == errors.NO_MASTER.format(nodes=2)


MEET = """
import os
from bids_wmh_uad.train.launch import Meeting, read_launch
meeting = Meeting(read_launch(os.environ))
meeting.announce(None) if meeting.launch.rank == 0 else meeting.await_controls()
"""


def test_without_controls_the_others_do_not_wait_for_ever():
    """Real processes: the first has nothing to announce, and ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", MEET], cwd=ROOT, text=True, stderr=subprocess.PIPE,
            env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
        )
        for rank in (0, 1)
    )  # fmt: skip
    assert first.communicate()[1] == ""
    assert errors.NO_CONTROLS_SHARED in second.communicate()[1]
    assert (first.returncode, second.returncode) == (0, 1)


def test_a_batch_that_cannot_be_shared_is_refused(controls, tmp_path):
    config = make_config(tmp_path)
    meeting = Meeting(Launch())
    meeting.launch = Launch(0, 3, 0)
    with pytest.raises(
        errors.UsageError, match="--batch-size: 32 is not valid; expected a multiple of the 3 processes"
    ):
        learn(controls, config, meeting, torch.device("cpu"))


class StoppedError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def interrupted(controls, tmp_path, monkeypatch):
    """A training that ended after its first checkpoint."""

    def save_and_stop(*arguments):
        save(*arguments)
        raise StoppedError

    save = learning.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(learning, "save_checkpoint", save_and_stop)
        with pytest.raises(StoppedError):
            train_here(controls, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"epochs": 4}, "--epochs"),
        ({"alpha": 0.1}, "--alpha"),
        ({"focus": 0.0}, "--focus"),
        ({"random_seed": 3}, "--random-seed"),
        ({"encoder": "wide"}, "--encoder"),
        ({"objective": "ocsvm-guided"}, "--objective"),
    ],
)
def test_resuming_under_other_settings_is_refused_by_name(controls, interrupted, change, name):
    with pytest.raises(errors.TrainingError, match=f"was made with {name} "):
        train_here(controls, interrupted, resume=True, **change)
    assert (interrupted / "model" / CHECKPOINT).is_file()


def test_resuming_on_other_controls_is_refused(controls, interrupted, tmp_path):
    others = make_controls(tmp_path / "others", 6, seed=1)
    with pytest.raises(errors.TrainingError, match="was made with the controls' digest "):
        train_here(others, interrupted, resume=True)
    fewer = dict(list(controls.items())[:5])
    with pytest.raises(errors.TrainingError, match="was made with the number of controls 6, not 5"):
        train_here(fewer, interrupted, resume=True)


def test_a_damaged_checkpoint_is_a_typed_error(controls, interrupted):
    path = interrupted / "model" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(errors.TrainingError, match="cannot be resumed"):
        train_here(controls, interrupted, resume=True)


def test_without_resume_a_checkpoint_is_replaced(controls, interrupted, uninterrupted):
    train_here(controls, interrupted)
    assert model_bytes(interrupted) == model_bytes(uninterrupted)


def test_resuming_what_is_finished_changes_nothing(controls, uninterrupted):
    path = uninterrupted / "model" / "model.json"
    before = path.stat().st_mtime_ns
    train_here(controls, uninterrupted, resume=True)
    assert path.stat().st_mtime_ns == before


def test_the_model_says_how_it_was_made_and_no_names(uninterrupted, controls):
    model, description = load_model(uninterrupted / "model")
    said = description["training"]
    assert (said["sessions"], said["held_out_sessions"], said["epochs"]) == (4, 2, 3)
    assert said["best_epoch"] in (1, 2, 3)
    assert not [label for label in controls if label in json.dumps(description)]
    assert model.architecture()["name"] == "siamese-patch-ae-15"


def test_the_encoder_that_was_chosen_is_the_one_that_loads(controls, tmp_path):
    path = train_here(controls, tmp_path, encoder="wide", epochs=1, objective="ocsvm-guided", nu=0.1)
    model, description = load_model(path)
    assert model.latent_size == 400
    assert description["training"]["nu"] == 0.1
    assert description["training"]["losses"]["hinge"] > 0


def test_who_is_held_out():
    labels = [f"sub-{index:03d}" for index in range(500)]
    assert held_out_labels(labels[:4], 0.5, 0) == set()
    assert held_out_labels(labels[:20], 0.0, 0) == set()
    assert [len(held_out_labels(labels[:n], 0.1, 0)) for n in (5, 12, 20, 40, 500)] == [2, 2, 2, 4, 32]
    assert (
        held_out_labels(labels, 0.1, 0) == held_out_labels(labels, 0.1, 0) != held_out_labels(labels, 0.1, 1)
    )


def test_a_failing_report_never_fails_the_training(controls, tmp_path, caplog):
    (tmp_path / learning.REPORT).mkdir()
    with caplog.at_level("WARNING", logger="bids_wmh_uad"):
        path = train_here(controls, tmp_path, epochs=1)
    assert load_model(path)[1]["training"]["epochs"] == 1
    assert errors.TRAINING_REPORT_FAILED.split("(")[0] in caplog.text


def test_the_page_is_complete_and_asks_for_nothing(uninterrupted):
    page = (uninterrupted / learning.REPORT).read_text()
    assert "Finished: 3 of 3 epochs" in page
    assert page.count("<polyline") == 2
    assert 'src="data:image/png;base64,' in page
    assert "://" not in page
    assert '<td>--batch-size</td><td class="value">32</td>' in page
