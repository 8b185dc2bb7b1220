"""The settings: valid ones are kept, others are refused with the option's name."""

from __future__ import annotations

import tomllib
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_wmh_uad.config import (
    Method,
    Performance,
    RunConfig,
    Running,
    Training,
    available_cpus,
    available_memory_gb,
)
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.errors import BAD_VALUE, WORK_INSIDE_INPUT, UsageError

BIDS = Path("/data/bids")
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
        (Training, "epochs", 0), (Training, "patches_per_epoch", 0), (Training, "batch_size", 1),
        (Training, "alpha", -0.1), (Training, "focus", -1.0), (Training, "focus", NAN),
    ],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(group: type, option: str, value: object) -> None:
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
        (Performance, "device", "cuda"), (Performance, "device", "cuda:12"), (Training, "batch_size", 2),
    ],
)  # fmt: skip
def test_the_ends_of_the_valid_ranges_are_kept(group: type, option: str, value: object) -> None:
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
    made = config(method=Method(nu=nu, gamma=gamma, model=model), training=Training(epochs=epochs))
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
