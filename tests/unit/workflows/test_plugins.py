"""The nipype plugin: order of sessions, and what happens when a worker dies."""

from pathlib import Path

import pytest

from bids_wmh_uad.errors import WORKER_KILLED, WorkerKilledError
from bids_wmh_uad.workflows.engine import read_crashes


def _note(path, label):
    with open(path, "a") as handle:  # noqa: PTH123 (nipype runs the source alone)
        handle.write(label + "\n")
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


def _same(x):
    return x + "+"


def _run(tmp_path, sessions, n_procs):
    import nipype.pipeline.engine as pe
    from nipype import config

    from bids_wmh_uad.workflows.plugins import SessionsInOrder

    config.update_config(
        {
            "execution": {
                "crashdump_dir": str(tmp_path / "crash"),
                "crashfile_format": "txt",
                "poll_sleep_duration": "0.05",
                "stop_on_first_crash": "false",
            }
        }
    )
    top = pe.Workflow(name="top", base_dir=str(tmp_path / "work"))
    top.add_nodes(sessions)
    names = [session.name for session in sessions]
    top.run(plugin=SessionsInOrder(names, {"n_procs": n_procs, "memory_gb": 4, "raise_insufficient": False}))


def test_an_earlier_session_is_finished_before_a_later_one_is_begun(tmp_path: Path) -> None:
    log = tmp_path / "log"
    _run(tmp_path, [_session(name, _note, log, steps=3) for name in ("one_wf", "two_wf")], n_procs=1)
    assert [line[:3] for line in log.read_text().split()] == ["one"] * 3 + ["two"] * 3


def test_a_killed_worker_fails_its_session_and_no_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sessions = [_session("one_wf", _die, log), _session("two_wf", _note, log, steps=2)]
    with pytest.raises(RuntimeError):
        _run(tmp_path, sessions, n_procs=1)
    assert [line[:3] for line in log.read_text().split()] == ["two"] * 2
    (crash,) = read_crashes(tmp_path / "crash")
    assert "one_wf" in crash.node.split(".")
    assert (type(crash.error), str(crash.error)) == (WorkerKilledError, WORKER_KILLED)
