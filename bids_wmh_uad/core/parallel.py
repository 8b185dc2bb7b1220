"""Independent pieces of work: on a few threads or processes, or on a GPU as large as its memory allows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from sklearn.utils.parallel import Parallel, delayed

from bids_wmh_uad.core.device import is_out_of_memory
from bids_wmh_uad.errors import GPU_MEMORY, GPU_SLABS, SessionWarning
from bids_wmh_uad.processes import die_with_parent, this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Item = TypeVar("Item")
    Result = TypeVar("Result")

GPU_FACTOR = 16
"""Ratio of the thickness of a GPU's slabs to a core's: a GPU has no use for small pieces."""


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> list[Result]:
    """Apply a function to every item, several at once, each on one torch thread.

    torch and numpy release the interpreter's lock while they compute. Threads over
    items never wait for each other, where threads inside every operation meet at its
    end (dear on a busy machine); and each item's arithmetic is the same bit for bit
    whatever the number of threads.

    Parameters
    ----------
    function : callable
        Thread-safe. torch's inference and no-gradient modes are per thread: enter them inside.
    items : iterable
        Read to its end at once; a failing item's exception is raised here.
    threads : int, optional
        Items in work at once; without it, ``torch.get_num_threads()`` at the call.

    Returns
    -------
    list, in the order of the items.

    Notes
    -----
    For the time of the call torch's number of threads is 1 in the whole process.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # the number is kept per thread as well: every worker sets its own
        with ThreadPoolExecutor(threads or before, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(before)


def process_map(
    function: Callable[[Item], Result], items: Iterable[Item], n_jobs: int | None
) -> list[Result]:
    """Apply a function to every item in worker processes, each on one torch thread.

    For work made of many small calls, where threads would wait for each other at the
    interpreter's lock. A process takes seconds to start and is kept for the next call.

    Parameters
    ----------
    function : callable
        Pickled; large arrays in it are memory-mapped by the workers, not sent.
    items : iterable
    n_jobs : int, optional
        As in scikit-learn: worker processes, -1 for all cores. None or 1: `parallel_map`, on
        threads of this process.

    Returns
    -------
    list, in the order of the items; the same whatever `n_jobs`.
    """
    if n_jobs in (None, 1):
        return parallel_map(function, items)
    # from their first moment: a parent can die while they still import
    workers = Parallel(n_jobs=n_jobs, initializer=die_with_parent, initargs=(this_process().pid,))
    return list(workers(delayed(_on_one_thread)(function, item) for item in items))


def _on_one_thread(function: Callable[[Item], Result], item: Item) -> Result:
    return parallel_map(function, [item], threads=1)[0]


def stream_slabs(
    work_on: Callable[[str], Callable[[slice], torch.Tensor]],
    mask: NDArray[np.bool_],
    slices: int,
    device: str,
    width: tuple[int, ...] = (),
) -> tuple[NDArray[np.float32], str, tuple[SessionWarning, ...]]:
    """Compute a volume slab by slab, within the memory that there is.

    Parameters
    ----------
    work_on : callable
        From a torch device to a function from a slab of Z to the values of its voxels in the
        mask, slice by slice (`core.network.embedding.slices_first`); thread-safe.
    mask : (X, Y, Z) bool array
        Voxels to compute.
    slices : int
        Slices of a slab; on a GPU, which has no use for small pieces, `GPU_FACTOR` times as many.
    device : str
    width : tuple of int
        Shape of one voxel's values: none for a number.

    Returns
    -------
    volume : (X, Y, Z, *width) float32 array
        0 outside the mask and where a value is NaN.
    device : str
        Device of the last slab.
    warnings : tuple of SessionWarning
        `errors.GPU_SLABS`: slabs were halved; `errors.GPU_MEMORY`: the CPU had to go on.
    """
    volume = np.zeros((*mask.shape, *width), dtype=np.float32)
    depth, start = mask.shape[2], 0
    warnings: list[SessionWarning] = []

    def fill(work: Callable[[slice], torch.Tensor], slab: slice) -> None:
        inside = mask[..., slab].transpose(2, 0, 1)
        values = np.zeros((*inside.shape, *width), dtype=np.float32)
        values[inside] = np.nan_to_num(work(slab).cpu().numpy(), nan=0.0)
        volume[:, :, slab] = np.moveaxis(values, 0, 2)

    if device != "cpu":
        start, smallest = _stream_on_gpu(fill, work_on, depth, slices * GPU_FACTOR, device)
        if smallest < slices * GPU_FACTOR:
            warnings.append(GPU_SLABS.format(device=device, slices=smallest))
    if start < depth:
        if device != "cpu":
            warnings.append(GPU_MEMORY.format(device=device, done=start, depth=depth))
        work, device = work_on("cpu"), "cpu"
        parallel_map(lambda begin: fill(work, slice(begin, begin + slices)), range(start, depth, slices))
    return volume, device, tuple(warnings)


def _stream_on_gpu(
    fill: Callable[[Callable[[slice], torch.Tensor], slice], None],
    work_on: Callable[[str], Callable[[slice], torch.Tensor]],
    depth: int,
    slices: int,
    device: str,
) -> tuple[int, int]:
    """Work through the slabs, halving them whenever memory runs out; slices done and the last size tried."""
    start, work = 0, None
    while start < depth:
        try:
            work = work or work_on(device)
            fill(work, slice(start, start + slices))
            start += slices
            continue
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():  # not before the error is gone, whose frames hold the slab
            torch.cuda.empty_cache()
        if slices == 1:
            break
        slices //= 2
    return min(start, depth), slices
