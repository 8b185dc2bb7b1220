"""Independent pieces of work on a few threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")


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
