"""Memory: known before a session starts, and as many side by side as fit."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import nibabel as nib
import nipype.pipeline.engine as pe
import numpy as np
import pytest
from nipype.interfaces.utility import Function

from bids_wmh_uad.bids.dataset import Session
from bids_wmh_uad.config import Performance, RunConfig, Running, available_memory_gb
from bids_wmh_uad.errors import TOO_LITTLE_MEMORY, MemoryExhaustedError
from bids_wmh_uad.locks import Locks
from bids_wmh_uad.workflows import engine, memory


def header_only(path: Path, shape: tuple[int, ...]) -> Path:
    """A NIfTI file as large as its header claims, of hardly a block on the disk."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["vox_offset"] = 352
    path.write_bytes(header.binaryblock + bytes(4))
    os.truncate(path, 352 + 2 * int(np.prod(shape)))
    return path


def session(tmp_path: Path, flair: tuple[int, ...], t1w: tuple[int, ...] = (64, 64, 64)) -> Session:
    paths = header_only(tmp_path / "sub-1_FLAIR.nii", flair), header_only(tmp_path / "sub-1_T1w.nii", t1w)
    return Session("1", None, *paths)


def config(tmp_path: Path, gib: float) -> RunConfig:
    performance = Performance(mem_gb=gib, nprocs=4)
    running = Running(work_dir=tmp_path / "work")
    return RunConfig(Path("/bids"), tmp_path / "out", "participant", performance=performance, running=running)


@pytest.mark.parametrize(
    ("grid", "measured"),
    [((204, 258, 42), 1.23), ((170, 215, 175), 1.19), ((227, 287, 234), 1.55), ((255, 323, 263), 1.94)],
)  # peaks of phantom sessions; `benchmarks/memory.py` prints such
def test_the_need_is_enough_for_what_was_measured_and_not_far_above(
    grid: tuple[int, ...], measured: float, tmp_path: Path
) -> None:
    need, voxels = memory.session_gb(session(tmp_path, grid))
    assert measured <= need <= 1.25 * measured
    assert voxels == pytest.approx(np.prod(grid) / 1e6)


def test_the_larger_scan_counts_and_threads_add_little(tmp_path: Path) -> None:
    large, small = (512, 512, 320), (64, 64, 64)
    assert memory.session_gb(session(tmp_path, large, small)) == memory.session_gb(
        session(tmp_path, small, large)
    )
    one, many = (memory.session_gb(session(tmp_path, large), threads)[0] for threads in (1, 16))
    assert one < many < one + 0.2
    assert 5 < one < 10


@pytest.mark.parametrize("content", [b"", b"not an image", bytes(400)])
def test_headers_that_cannot_be_read_are_left_to_the_session(content: bytes, tmp_path: Path) -> None:
    made = session(tmp_path, (8, 8, 8))
    made.flair.write_bytes(content)
    made.t1w.unlink()
    assert memory.session_gb(made) == (memory.LEAST_GB, 0.0)


def test_a_session_that_does_not_fit_is_a_failed_one(tmp_path: Path) -> None:
    made = session(tmp_path, (512, 512, 320))
    need, voxels = memory.session_gb(made)
    assert memory.refuse_too_large(made, config(tmp_path, need)) is None
    failed = memory.refuse_too_large(made, config(tmp_path, need - 0.1))
    assert failed is not None
    assert type(failed.error) is MemoryExhaustedError
    start = TOO_LITTLE_MEMORY.format(where="sub-1", need=need, voxels=voxels, limit=need - 0.1, source="")
    assert str(failed.error).startswith(start.split(" GiB .")[0])


def test_ulimit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = session(tmp_path, (64, 64, 64))
    for limit, fits in ((resource.RLIM_INFINITY, True), (8 * 2**30, True), (2 * 2**30, False)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        failed = memory.refuse_too_large(made, config(tmp_path, 100.0))
        assert (failed is None) is fits
        assert fits or "ulimit -v" in str(failed.error)


@pytest.mark.parametrize(
    ("gib", "sessions", "together"), [(100.0, 2, 4), (2.5, 2, 3), (2.5, 30, 1), (0.1, 2, 1)]
)
def test_as_many_pairs_of_sessions_are_compared_at_once_as_fit(
    gib: float, sessions: int, together: int, tmp_path: Path
) -> None:
    """Each about half a GiB, on the grid of a brain; sessions that wait take memory, too."""
    assert memory.pairs_at_once(sessions, 4_600_000, config(tmp_path, gib)) == together


@pytest.mark.parametrize(("gib", "together"), [(100.0, 4), (3.0, 2), (1.4, 1)])
def test_as_many_run_side_by_side_as_fit(gib: float, together: int, tmp_path: Path) -> None:
    """The scheduler's own count: four steps of the smallest sessions, four processes."""
    settings = config(tmp_path, gib)
    plugin = engine.plugin_settings(settings, engine.Progress({}, "publish"), [])["plugin"]
    graph = pe.Workflow(name="sub_1_wf")
    graph.add_nodes(
        [
            pe.Node(Function(function=_fail, input_names=[], output_names=["out"]), name=f"step{number}")
            for number in range(4)
        ]
    )
    memory.reserve(graph, session(tmp_path, (64, 64, 64)), 1)
    steps = list(graph._get_all_nodes())
    started = list(plugin._fitting(steps, []))
    assert len(started) == together
    assert list(plugin._fitting(steps[together:], started)) == []


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


GIB = 2**30


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc__meminfo": "MemTotal: 9437184 kB\nMemAvailable: 1048576 kB\n"}, 1.0),
        ({"proc__self__cgroup": "0::/job/step\n", "sys__fs__cgroup__job__memory.max": f"{2 * GIB}\n",
          "sys__fs__cgroup__job__memory.current": f"{GIB}\n", "sys__fs__cgroup__job__step__memory.max": "max\n"}, 1.0),
        ({"proc__self__cgroup": "0::/\n", "sys__fs__cgroup__memory.max": f"{2 * GIB}", "sys__fs__cgroup__memory.current": f"{2 * GIB}",
          "sys__fs__cgroup__memory.stat": f"anon {GIB}\ninactive_file {GIB // 2}\nactive_file {GIB // 4}\n"}, 0.75),
        ({"proc__self__cgroup": "9:cpu:/x\n4:memory:/docker/1\n", "sys__fs__cgroup__memory__memory.limit_in_bytes": f"{GIB // 2}\n",
          "sys__fs__cgroup__memory__memory.usage_in_bytes": "0\n"}, 0.5),
        ({"proc__self__cgroup": "4:memory:/job\n", "sys__fs__cgroup__memory__job__memory.limit_in_bytes": f"{GIB}\n",
          "sys__fs__cgroup__memory__job__memory.usage_in_bytes": f"{2 * GIB}\n"}, 0.0),
    ],
    ids=["machine", "version 2, above", "page cache", "version 1, in a container", "more than the limit"],
)  # fmt: skip
def test_what_is_free(files: dict[str, str], expected: float, tmp_path: Path) -> None:
    write(tmp_path, **files)
    assert available_memory_gb(tmp_path) == pytest.approx(expected)


def test_without_any_of_these_files_it_is_the_machines(tmp_path: Path) -> None:
    assert available_memory_gb(tmp_path) > 0.1


def _fail() -> None:
    raise MemoryError


def test_crash_files_go_where_they_belong_whatever_the_path(tmp_path: Path) -> None:
    settings = config(tmp_path / "100%s {x} 'é", 4.0)
    settings.log_dir.mkdir(parents=True)
    engine.configure_nipype(settings)
    graph = engine.top_workflow(settings)
    inner = pe.Workflow(name="sub_1_wf")
    inner.add_nodes([pe.Node(Function(function=_fail, input_names=[], output_names=["out"]), name="score")])
    graph.add_nodes([inner])
    made = session(tmp_path, (64, 64, 64))
    with Locks() as locks:
        engine.take_session(made, settings, locks)
        with pytest.raises(RuntimeError):
            graph.run(**engine.plugin_settings(settings, engine.Progress({}, "publish"), [made]))
    (crash,) = engine.read_crashes(settings.log_dir)
    assert "sub_1_wf" in crash.node.split(".")
    assert type(crash.error) is MemoryExhaustedError
    assert "report" not in str(crash.error)
