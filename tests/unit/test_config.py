"""The settings: valid ones are kept, others are refused with the option's name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.config import (
    Method,
    Performance,
    RunConfig,
    Running,
    TrainConfig,
    Training,
    available_cpus,
    available_memory_gb,
)
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import BAD_VALUE, WORK_INSIDE_INPUT, UsageError

BIDS = Path("/data/bids")
training = partial(Training, output_model=Path("/model"))
NAN = float("nan")


def config(output: str = "/out", work: str = "/work", **settings: object) -> RunConfig:
    return RunConfig(BIDS, Path(output), "participant", running=Running(work_dir=Path(work)), **settings)


@pytest.mark.parametrize(
    ("group", "option", "value"),
    [
        (Method, "nu", 0.0), (Method, "nu", 1.01), (Method, "nu", NAN),
        (Method, "gamma", "auto"), (Method, "gamma", 0.0), (Method, "gamma", NAN),
        (Method, "n_samples", 99), (Method, "min_lesion_volume", -1.0), (Method, "min_lesion_volume", NAN),
        (Method, "random_seed", -1), (Method, "random_seed", 2**31 - 1),
        (Method, "paradigm", "crowd"), (Method, "score", "best"),
        (Performance, "device", "gpu"), (Performance, "device", "cuda:"), (Performance, "device", "cuda:x"),
        (Performance, "nprocs", 0), (Performance, "omp_nthreads", 0), (Performance, "mem_gb", 0.0),
        (training, "epochs", 0), (training, "patches_per_epoch", 0), (training, "batch_size", 1),
        (training, "alpha", -0.1), (training, "focus", -1.0), (training, "focus", NAN),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(
    group: Callable[..., object], option: str, value: object
) -> None:
    with pytest.raises(UsageError) as raised:
        group(**{option: value})
    start = BAD_VALUE.format(option="--" + option.replace("_", "-"), value=value, expected="")
    assert str(raised.value).startswith(start.removesuffix("."))
    assert raised.value.exit_code == 64


@pytest.mark.parametrize(
    ("group", "option", "value"),
    [
        (Method, "nu", 1.0), (Method, "gamma", "scale"), (Method, "gamma", 1e-9), (Method, "n_samples", 100),
        (Method, "min_lesion_volume", 0.0), (Method, "random_seed", 2**31 - 2),
        (Performance, "device", "cuda"), (Performance, "device", "cuda:12"), (training, "batch_size", 2),
    ],
)  # fmt: skip
def test_the_ends_of_the_valid_ranges_are_kept(
    group: Callable[..., object], option: str, value: object
) -> None:
    assert getattr(group(**{option: value}), option) == value


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        config().analysis_level = "group"  # type: ignore[misc]


@pytest.mark.parametrize("where", ["", "/sub-01", "/sourcedata/out", "/derivative", "/code/derivatives/x"])
@pytest.mark.parametrize("what", ["output", "work"])
def test_nothing_is_written_among_the_raw_data(what: str, where: str) -> None:
    path = f"{BIDS}{where}"
    with pytest.raises(UsageError) as raised:
        config(**{what: path})
    assert str(raised.value) == WORK_INSIDE_INPUT.format(path=path, what=what)


def test_the_model_is_not_written_among_the_raw_data() -> None:
    with pytest.raises(UsageError) as raised:
        TrainConfig(BIDS, Path("/out"), "train", training=training(output_model=BIDS / "model"))
    assert str(raised.value) == WORK_INSIDE_INPUT.format(path=BIDS / "model", what="model")


@pytest.mark.parametrize("where", ["/data/bids/derivatives/wmh", "/data/bids2", "/data"])
def test_derivatives_and_neighbours_of_the_raw_data_are_allowed(where: str) -> None:
    assert config(output=where, work=f"{where}/derivatives").output_dir == Path(where)


@given(
    nu=st.floats(1e-6, 1),
    gamma=st.one_of(st.just("scale"), st.floats(1e-6, 1e6)),
    model=st.text(max_size=20).filter(lambda text: text.isprintable()),
    epochs=st.integers(1, 10**9),
)
def test_toml_holds_the_settings_exactly(nu: float, gamma: str | float, model: str, epochs: int) -> None:
    made = TrainConfig(
        BIDS, Path("/out"), "train", running=Running(work_dir=Path("/work")),
        method=Method(nu=nu, gamma=gamma, model=model), training=training(epochs=epochs),
    )  # fmt: skip
    read = tomllib.loads(made.to_toml())
    assert read["method"] == {**vars(made.method)}
    assert read["detection"] == asdict(made.method.parameters)
    assert read["detection"]["nu"] == nu
    assert read["training"]["epochs"] == epochs
    assert read["bids_dir"] == str(BIDS)
    assert read["running"]["work_dir"] == "/work"
    assert "reference" not in read  # unset
    assert read["selection"]["participant_label"] == []


def test_each_run_has_a_log_directory_of_its_own() -> None:
    first, second = config(run_uuid="a"), config(run_uuid="b")
    assert first.log_dir != second.log_dir
    assert first.log_dir.parent == second.log_dir.parent == Path("/out/logs")


def test_the_machine_has_a_cpu_and_memory() -> None:
    assert available_cpus() >= 1
    assert 0 < available_memory_gb() < 2**20


def test_the_parameters_are_what_the_user_chose() -> None:
    chosen = {"score": "faithful", "nu": 0.5, "gamma": 2.0, "n_samples": 700, "threshold": "gm=3"}
    made = Method(**chosen, min_lesion_volume=7.0)
    assert made.parameters == DetectionParameters(**chosen, min_lesion_volume=7.0)
    assert Method().parameters == DetectionParameters()
    with pytest.raises(UsageError, match="--threshold"):
        Method(threshold="guess")
