"""The nipype plugin: order of sessions, and what happens when a worker dies."""

import gc
import gzip
import pickle
from pathlib import Path

import pytest

from bids_wmh_uad.errors import UNSIGNED_PICKLE, WORKER_KILLED, WorkerKilledError
from bids_wmh_uad.workflows.engine import read_crashes


def _note(path, label):
    with open(path, "a") as handle:  # noqa: PTH123 (nipype runs the source alone)
        handle.write(label + "\n")
    return label


def _note_inside(path, label):
    with open(path + "/log", "a") as handle:  # noqa: PTH123
        handle.write(label + "\n")
    return label


def _replace_result(path, label):
    """Exchange the first step's result, as somebody from outside could."""
    from pathlib import Path

    Path(path, "work/top/two_wf/step0/result_step0.pklz").write_bytes(b"other")
    return label


def _die(path, label):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def _session(name, function, log, steps=1):
    import nipype.pipeline.engine as pe
    from nipype.interfaces.utility import Function

    workflow = pe.Workflow(name=name)
    previous = None
    for number in range(steps):
        node = pe.Node(
            Function(input_names=["path", "label"], output_names=["out"], function=function),
            name=f"step{number}",
        )
        node.inputs.path, node.inputs.label = str(log), f"{name}.{number}"
        if previous is None:
            workflow.add_nodes([node])
        else:
            link = pe.Node(
                Function(input_names=["x"], output_names=["y"], function=_same), name=f"link{number}"
            )
            workflow.connect([(previous, link, [("out", "x")]), (link, node, [("y", "label")])])
        previous = node
    return workflow


def _attacked(tmp_path):
    """A session whose first step's result is exchanged before its last step reads it."""
    import nipype.pipeline.engine as pe
    from nipype.interfaces.utility import Function

    workflow = _session("two_wf", _note_inside, tmp_path)
    first = workflow.get_node("step0")
    names = {"input_names": ["path", "label"], "output_names": ["out"]}
    attack = pe.Node(Function(**names, function=_replace_result), name="attack")
    last = pe.Node(Function(**names, function=_note_inside), name="last")
    attack.inputs.path = str(tmp_path)
    workflow.connect([
        (first, attack, [("out", "label")]), (first, last, [("out", "label")]), (attack, last, [("out", "path")]),
    ])  # fmt: skip
    return workflow


def _same(x):
    return x + "+"


def _run(tmp_path, sessions, n_procs, stop="false"):
    import nipype.pipeline.engine as pe
    from nipype import config

    from bids_wmh_uad.workflows.plugins import SessionsInOrder

    config.update_config(
        {
            "execution": {
                "crashdump_dir": str(tmp_path / "crash"),
                "crashfile_format": "txt",
                "poll_sleep_duration": "0.05",
                "stop_on_first_crash": stop,
            }
        }
    )
    top = pe.Workflow(name="top", base_dir=str(tmp_path / "work"))
    top.add_nodes(sessions)
    names = [session.name for session in sessions]
    settings = {"n_procs": n_procs, "memory_gb": 4, "raise_insufficient": False}
    top.run(plugin=SessionsInOrder(names, settings, {tmp_path / "work" / "top": "key"}))


def test_an_earlier_session_is_finished_before_a_later_one_is_begun(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(tmp_path, [_session(name, _note, log, steps=3) for name in ("one_wf", "two_wf")], n_procs=1)
    assert [line[:3] for line in log.read_text().split()] == ["one"] * 3 + ["two"] * 3


def _slow(path, label):
    import time

    time.sleep(1)
    return label


def test_the_scheduler_looks_when_a_step_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bids_wmh_uad.workflows.plugins import SessionsInOrder

    looks, original = [], SessionsInOrder._fitting

    def look(self, *given):
        looks.append(gc.get_freeze_count())
        return original(self, *given)

    monkeypatch.setattr(SessionsInOrder, "_fitting", look)
    _run(tmp_path, [_session("one_wf", _slow, tmp_path, steps=2)], n_procs=2)  # one worker stays idle
    assert len(looks) == 3  # one for each step
    assert min(looks) > 0
    assert gc.get_freeze_count() == 0


def test_a_killed_worker_fails_its_session_and_no_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sessions = [_session("one_wf", _die, log), _session("two_wf", _note, log, steps=2)]
    with pytest.raises(RuntimeError):
        _run(tmp_path, sessions, n_procs=1)
    assert [line[:3] for line in log.read_text().split()] == ["two"] * 2
    (crash,) = read_crashes(tmp_path / "crash")
    assert "one_wf" in crash.node.split(".")
    assert (type(crash.error), str(crash.error)) == (WorkerKilledError, WORKER_KILLED)


def _fail(path, label):
    raise ValueError(label)


def _note_late(path, label):
    import time

    time.sleep(1)
    with open(path, "a") as handle:  # noqa: PTH123
        handle.write(label + "\n")
    return label


@pytest.mark.parametrize(("stop", "noted"), [("true", ["two_wf.0"]), ("false", ["two_wf.0", "two_wf.0+"])])
def test_after_the_first_crash_the_steps_in_flight_end_and_no_other_begins(
    tmp_path: Path, stop: str, noted: list[str]
) -> None:
    log = tmp_path / "log"
    sessions = [_session("one_wf", _fail, log), _session("two_wf", _note_late, log, steps=2)]
    with pytest.raises(RuntimeError, match=r"one_wf\.0"):
        _run(tmp_path, sessions, n_procs=2, stop=stop)
    assert log.read_text().split() == noted  # nothing works on behind the run's back


def test_a_result_that_another_put_there_is_not_read(tmp_path: Path) -> None:
    log, marker = tmp_path / "log", tmp_path / "run by a pickle"  # of a directory nipype hashes the name only
    _run(tmp_path, [_session("one_wf", _note_inside, tmp_path, steps=2)], n_procs=1)
    before = log.read_text().split()
    _run(tmp_path, [_session("one_wf", _note_inside, tmp_path, steps=2)], n_procs=1)
    assert log.read_text().split() == before  # all of it from the cache
    pickles = sorted((tmp_path / "work" / "top" / "one_wf").rglob("*.pklz"))
    assert len(pickles) >= 3
    content = gzip.compress(pickle.dumps(_Malicious(marker)))
    for path in pickles:
        path.write_bytes(content)
    _run(tmp_path, [_session("one_wf", _note_inside, tmp_path, steps=2)], n_procs=1)
    assert log.read_text().split() == 2 * before
    first = tmp_path / "work" / "top" / "one_wf" / "step0" / "result_step0.pklz"
    other = first.parents[1] / "step1" / "result_step1.pklz"
    first.write_bytes(other.read_bytes())  # well signed, but another step's
    _run(tmp_path, [_session("one_wf", _note_inside, tmp_path, steps=2)], n_procs=1)
    assert log.read_text().split() == [*2 * before, before[0]]
    with pytest.raises(RuntimeError):
        _run(tmp_path, [_attacked(tmp_path)], n_procs=1)
    (crash,) = read_crashes(tmp_path / "crash")
    replaced = tmp_path / "work" / "top" / "two_wf" / "step0" / "result_step0.pklz"
    assert str(crash.error) == UNSIGNED_PICKLE.format(path=replaced)
    assert not marker.exists()


class _Malicious:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
