"""Around nipype: what a crash file says, plugin files, progress, and the environment."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

from bids_wmh_uad import errors
from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import Method, Performance, RunConfig, Running
from bids_wmh_uad.workflows import engine

NODE = "bids_wmh_uad_0_1_wf.sub_01_ses_1_wf.preprocess_wf.read_flair"
CRASH = """\
Node: {node}
Working directory: /work/{node}

Node inputs:

in_file = /data/sub-01_FLAIR.nii.gz

Traceback (most recent call last):
  File "/venv/nipype/pipeline/plugins/linear.py", line 47, in run
    node.run(updatehash=updatehash)
  File "/venv/nipype/pipeline/engine/nodes.py", line 827, in _run_command
    raise NodeExecutionError(msg)
nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node read_flair.

Traceback:
\tTraceback (most recent call last):

{cause}
"""
TYPED = """\
\t  File "/venv/nibabel/volumeutils.py", line 472, in array_from_file
\t    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
\tEOFError: Compressed file ended before the end-of-stream marker was reached

\tThe above exception was the direct cause of the following exception:

\tTraceback (most recent call last):
\t  File "/venv/bids_wmh_uad/imaging/scans.py", line 70, in read_scan
\t    raise BadImageError(TRUNCATED_IMAGE.format(path=path, reason=error)) from error
\tbids_wmh_uad.errors.{name}: {message}
"""
UNTYPED = """\
\t  File "/venv/bids_wmh_uad/imaging/scans.py", line 170, in correct_bias
\t    raise RuntimeError("itk::ERROR")
\tRuntimeError: itk::ERROR: mask is empty
"""


def crash(directory: Path, cause: str, name: str = "crash-20260101-000000-me-x.txt") -> Path:
    path = directory / name
    path.write_text(CRASH.format(node=NODE, cause=cause))
    return path


def run_config(**settings: object) -> RunConfig:
    running = Running(work_dir=Path("/work"))
    return RunConfig(Path("/bids"), Path("/out"), "participant", running=running, **settings)


def test_a_typed_error_is_the_reason_word_for_word(tmp_path: Path) -> None:
    message = errors.TRUNCATED_IMAGE.format(path="/data/sub-01_FLAIR.nii.gz", reason="Compressed: ended")
    path = crash(tmp_path, TYPED.format(name="BadImageError", message=message))
    (found,) = engine.read_crashes(tmp_path)
    assert (found.node, found.crashfile, str(found.error)) == (NODE, path, message)
    assert type(found.error) is errors.BadImageError


@pytest.mark.parametrize("name", ["TemporaryError", "StorageError", "MissingInputError"])
def test_every_typed_error_is_known(tmp_path: Path, name: str) -> None:
    assert issubclass(getattr(errors, name), errors.WmhUadError)
    crash(tmp_path, TYPED.format(name=name, message="text"))
    (found,) = engine.read_crashes(tmp_path)
    assert (type(found.error), str(found.error)) == (getattr(errors, name), "text")


def test_of_chained_errors_the_last_is_the_reason(tmp_path: Path) -> None:
    causes = [TYPED.format(name=name, message=name) for name in ("StorageError", "BadImageError")]
    crash(tmp_path, "".join(causes))
    (found,) = engine.read_crashes(tmp_path)
    assert (type(found.error), str(found.error)) == (errors.BadImageError, "BadImageError")


def test_a_step_that_could_not_write_its_result_has_the_reason_why(tmp_path: Path) -> None:
    full = "OSError: [Errno 28] No space left on device: '/work/result_score.pklz'\n"
    crash(tmp_path, full + "\nFileNotFoundError: /work/sub_1_wf/score/result_score.pklz\n")
    (found,) = engine.read_crashes(tmp_path)
    assert type(found.error) is errors.StorageError
    assert "No space left" in str(found.error)


def test_any_other_error_is_named_with_its_node_and_crash_file(tmp_path: Path) -> None:
    path = crash(tmp_path, UNTYPED)
    expected = errors.SESSION_CRASHED.format(
        node=NODE.partition(".")[2], reason="RuntimeError: itk::ERROR: mask is empty", crashfile=path
    )
    (found,) = engine.read_crashes(tmp_path)
    assert (type(found.error), str(found.error)) == (errors.SessionError, expected)


def test_a_crash_file_without_an_error_is_still_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "crash-1.txt"
    path.write_text("")
    found = engine.read_crashes(tmp_path)[0]
    assert found.node == path.name
    assert "unknown error" in str(found.error)


def test_crashes_come_oldest_first_and_other_files_do_not_count(tmp_path: Path) -> None:
    for name in ("crash-20260102-000000-me-a.txt", "crash-20260101-235959-me-b.txt", "run.log"):
        crash(tmp_path, UNTYPED, name)
    assert [found.crashfile.name[6:14] for found in engine.read_crashes(tmp_path)] == ["20260101", "20260102"]


def test_a_plugin_file_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "plugin.yml"
    path.write_text("plugin: MultiProc\nplugin_args: {n_procs: 3, raise_insufficient: false}\n")
    progress = engine.Progress({}, "publish")
    settings = engine.plugin_settings(run_config(performance=Performance(use_plugin=path)), progress, [])
    assert settings["plugin"] == "MultiProc"
    assert settings["plugin_args"] == {
        "n_procs": 3, "raise_insufficient": False, "status_callback": progress,
    }  # fmt: skip


@pytest.mark.parametrize(
    "content", ["", "3", "[a]", "plugin_args: {}", "plugin: [", "{plugin: a, plugin_args: 3}"]
)
def test_a_bad_plugin_file_is_a_usage_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plugin.yml"
    path.write_text(content)
    performance = Performance(use_plugin=path)
    with pytest.raises(errors.UsageError, match="--use-plugin") as raised:
        engine.plugin_settings(run_config(performance=performance), engine.Progress({}, "publish"), [])
    assert str(path) in str(raised.value)


def test_a_missing_plugin_file_is_a_usage_error(tmp_path: Path) -> None:
    performance = Performance(use_plugin=tmp_path / "none.yml")
    with pytest.raises(errors.UsageError, match=r"none\.yml"):
        engine.plugin_settings(run_config(performance=performance), engine.Progress({}, "publish"), [])


def test_the_budget_reaches_the_scheduler() -> None:
    performance = Performance(nprocs=3, mem_gb=5.0)
    progress = engine.Progress({}, "publish")
    plugin = engine.plugin_settings(run_config(performance=performance), progress, [])["plugin"]
    assert (plugin.processors, plugin.memory_gb) == (3, 5.0)
    assert plugin.plugin_args["status_callback"] is progress


def node(name: str, session: str = "sub_01_wf") -> SimpleNamespace:
    fullname = f"bids_wmh_uad_0_1_wf.{session}.{name}"
    return SimpleNamespace(fullname=fullname, name=name.rpartition(".")[2], base_dir="/work")


def test_each_step_has_its_sessions_place() -> None:
    progress = engine.Progress({"sub_01_wf": "sub-01", "sub_02_wf": "sub-02"}, "publish")
    plugin = engine.plugin_settings(run_config(), progress, [])["plugin"]
    steps = [node("x", "other"), node("b", "sub_02_wf"), node("preprocess_wf.y")]
    assert [plugin._session(step) for step in steps] == [2, 1, 0]


def test_steps_run_side_by_side_as_threads_and_memory_allow() -> None:
    performance = Performance(nprocs=3, mem_gb=5.0)
    progress = engine.Progress({}, "publish")
    plugin = engine.plugin_settings(run_config(performance=performance), progress, [])["plugin"]

    def fitting(ready: Sequence[tuple[int, float]], *running: tuple[int, float]) -> list[tuple[int, float]]:
        steps = [[SimpleNamespace(n_procs=n, mem_gb=gb) for n, gb in group] for group in (ready, running)]
        return [(step.n_procs, step.mem_gb) for step in plugin._fitting(*steps)]

    assert fitting([(1, 2.0), (1, 2.0), (1, 2.0)]) == [(1, 2.0), (1, 2.0)]
    assert fitting([(2, 1.0), (1, 3.0)], (2, 1.0)) == [(1, 3.0)]  # a later one in a gap
    assert fitting([(4, 9.0), (1, 1.0)]) == [(4, 9.0)]  # too large: alone
    assert fitting([(4, 9.0)], (1, 1.0)) == []
    assert fitting([(1, 0.1)], (3, 1.0)) == []


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_batches_hold_every_session_once_and_in_order(count: int, tmp_path: Path) -> None:
    sessions = [Session(str(number), None, Path(), Path()) for number in range(count)]
    made = list(engine.batches(sessions, run_config(performance=Performance(nprocs=2))))
    assert [session for batch in made for session in batch] == sessions
    assert all(made)
    largest = max(map(len, made), default=0)
    assert largest < 100  # a large cohort is cut
    cluster = run_config(performance=Performance(nprocs=2, use_plugin=tmp_path / "slurm.yml"))
    assert list(engine.batches(sessions, cluster)) == ([sessions] if sessions else [])


def test_progress_says_each_thing_once(caplog: pytest.LogCaptureFixture) -> None:
    progress = engine.Progress({"sub_01_wf": "sub-01", "sub_02_wf": "sub-02"}, "publish")
    caplog.set_level(logging.INFO, logger="bids_wmh_uad")
    for status in ("start", "end"):
        progress(node("preprocess_wf.read_flair"), status)
    progress(node("preprocess_wf.read_flair", "sub_02_wf"), "start")
    progress(node("preprocess_wf.read_flair", "sub_02_wf"), "exception")
    progress(node("publish", "sub_02_wf"), "end")  # nipype skipped it
    progress(node("publish"), "start")
    progress(node("publish"), "end")
    progress(node("publish", "other_wf"), "end")
    lines = [record.getMessage().split(" after ")[0] for record in caplog.records]
    assert lines == ["sub-01: started", "sub-02: started", "[1/2] sub-02: failed", "[2/2] sub-01: done"]


def test_steps_are_told_on_a_terminal_with_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="bids_wmh_uad")
    for terminal, level in ((True, logging.INFO), (False, logging.DEBUG)):
        caplog.clear()
        progress = engine.Progress({"sub_01_wf": "sub-01"}, "publish", terminal=terminal)
        for step in engine.STAGE_SECONDS:
            progress(node(f"preprocess_wf.{step}"), "start")
            progress(node(f"preprocess_wf.{step}"), "end")
        progress(node("ds_mask"), "end")  # nobody waits for it
        steps = [record for record in caplog.records if " left" in record.getMessage()]
        assert {record.levelno for record in steps} == {level}
        assert len(steps) == len(engine.STAGE_SECONDS) - 1  # the last one ends the session
        shares = [int(re.search(r"(\d+) %", record.getMessage())[1]) for record in steps]
        assert shares == sorted(shares)
        assert 0 <= shares[0] < shares[-1] < 100


def test_a_step_counts_once_and_a_failed_session_is_no_longer_to_be_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="bids_wmh_uad")
    progress = engine.Progress({"sub_01_wf": "sub-01", "sub_02_wf": "sub-02"}, "publish", terminal=True)

    def share(step: str) -> int:
        caplog.clear()
        progress(node(f"preprocess_wf.{step}"), "end")
        return int(re.search(r"(\d+) %", caplog.messages[-1])[1])

    once = share("brain_flair")
    assert share("brain_flair") == once > 0
    progress(node("preprocess_wf.read_flair", "sub_02_wf"), "end")
    progress(node("preprocess_wf.brain_flair", "sub_02_wf"), "exception")
    assert share("brain_flair") == 50 + once  # all of one session, however far it had come


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3540, "59 min"), (12_000, "3 h 20 min")]
)
def test_durations_fit_on_a_line(seconds: float, text: str) -> None:
    assert engine.duration(seconds) == text


def test_the_environment_is_the_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "kept"})
    engine.set_environment(run_config(method=Method(random_seed=0), performance=Performance(omp_nthreads=3)))
    state = {name: os.environ[name] for name in ("NIPYPE_CONFIG_DIR", "MPLCONFIGDIR")}
    assert all(Path("/work") in Path(path).parents for path in state.values())
    assert os.environ["ANTS_RANDOM_SEED"] != "0"  # 0 seeds ITK from the clock
    assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["NO_ET"] == "1"
    assert Path(os.environ["TEMPLATEFLOW_HOME"]).is_dir()
    assert os.environ["PATH"] == "kept"


def test_different_seeds_are_different_in_itk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    seen = set()
    for seed in range(4):
        engine.set_environment(run_config(method=Method(random_seed=seed)))
        seen.add(os.environ["ANTS_RANDOM_SEED"])
    assert len(seen) == 4


def test_no_version_and_no_dataset_uses_anothers_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for version in ("0.1.0", "0.1.1", "0.1.0.dev3+gabc"):
        monkeypatch.setattr(engine, "__version__", version)
        for level, dataset in product(("participant", "train"), ("/a/bids", "/b/bids")):
            names.add(engine.workflow_name(RunConfig(Path(dataset), Path("/out"), level)))
    assert len(names) == 12
    assert all(name.isidentifier() for name in names)
