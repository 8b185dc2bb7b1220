"""Work in pieces: on threads, and on a device whose memory runs out."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from bids_wmh_uad.core.network.dense import slices_first
from bids_wmh_uad.core.parallel import GPU_FACTOR, parallel_map, process_map, stream_slabs

WANTED = np.random.default_rng(0).random((5, 4, 37)) < 0.4
VALUES = np.random.default_rng(1).random(WANTED.shape).astype(np.float32)


def work_with_room_for(slices):
    """Work whose first device holds so many slices, as an exhausted GPU does."""

    def work_on(device):
        def work(slab):
            if device != "cpu" and len(range(*slab.indices(WANTED.shape[2]))) > slices:
                raise torch.OutOfMemoryError("no room")
            return torch.from_numpy(slices_first(VALUES, slab)[slices_first(WANTED, slab)])

        return work

    return work_on


@pytest.mark.parametrize(
    ("room", "device", "finished_on", "warned"),
    [
        (0, "cpu", "cpu", []),
        (99, "meta", "meta", []),
        (GPU_FACTOR, "meta", "meta", [("GPU_SLABS", f"{GPU_FACTOR} axial slices")]),
        (0, "meta", "cpu", [("GPU_SLABS", "1 axial slices"), ("GPU_MEMORY", "after 0 of 37")]),
    ],
)
def test_memory_that_runs_out_halves_slabs_then_leaves_the_rest_to_the_cpu(room, device, finished_on, warned):
    volume, where, warnings = stream_slabs(work_with_room_for(room), WANTED, 4, device)
    np.testing.assert_array_equal(volume, np.where(WANTED, VALUES, 0))
    assert where == finished_on
    assert len(warnings) == len(warned)
    for warning, (code, part) in zip(warnings, warned, strict=True):
        assert warning.code == code
        assert part in warning.text


@pytest.mark.parametrize("room", [0, 1, 99])
def test_a_voxel_may_have_several_values(room):
    many = np.stack([VALUES, -VALUES, VALUES**2], axis=-1)

    def work_on(device):
        one = work_with_room_for(room)(device)
        return lambda slab: torch.stack([one(slab), -one(slab), one(slab) ** 2], dim=1)

    for device in ("cpu", "meta"):
        volume, _, _ = stream_slabs(work_on, WANTED, 4, device, (3,))
        assert volume.dtype == np.float32
        np.testing.assert_allclose(volume, np.where(WANTED[..., None], many, 0))


@pytest.mark.parametrize(
    ("message", "survives"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_libraries_under_torch_run_out_of_memory_in_their_own_words(message, survives):
    def work_on(device):
        if device != "cpu":
            raise RuntimeError(message)
        return work_with_room_for(99)(device)

    if survives:
        volume, where, _ = stream_slabs(work_on, WANTED, 4, "meta")
        np.testing.assert_array_equal(volume, np.where(WANTED, VALUES, 0))
        assert where == "cpu"
    else:
        with pytest.raises(RuntimeError, match="illegal"):
            stream_slabs(work_on, WANTED, 4, "meta")


def test_values_that_are_nan_become_zero():
    nowhere, *_ = stream_slabs(
        lambda _: lambda slab: torch.full((int(WANTED[..., slab].sum()),), torch.nan), WANTED, 5, "cpu"
    )
    assert not nowhere.any()


def test_order_threads_and_errors():
    before = torch.get_num_threads()
    threads = parallel_map(lambda k: (k, torch.get_num_threads()), range(20), 3)
    assert threads == [(k, 1) for k in range(20)]
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda k: 1 / k, [1, 0])
    assert torch.get_num_threads() == before


def test_processes_are_worker_processes_on_one_thread():
    here = os.getpid()
    found = process_map(where, range(6), 2)
    assert [item for item, _, _ in found] == list(range(6))
    assert all(process != here and threads == 1 for _, process, threads in found)
    assert process_map(where, [0], None) == [(0, here, 1)]


def where(item: int) -> tuple[int, int, int]:
    return item, os.getpid(), torch.get_num_threads()
