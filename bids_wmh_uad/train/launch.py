"""Several processes for one training: who they are, how they meet, and what the first tells the others.

torchrun says who is who in its environment, and so does Slurm's srun. The first process alone reads
the dataset, preprocesses, logs and writes; the others wait for it, for days if need be, and then train.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.errors import BAD_VALUE, NO_CONTROLS_SHARED, NO_MASTER, TemporaryError, UsageError

if TYPE_CHECKING:
    import torch

LOGGER = logging.getLogger("bids_wmh_uad")
CONTROLS = "controls"
PREPROCESSING = timedelta(days=30)
"""How long the others wait for the controls."""
PORT = "29500"


@dataclass(frozen=True)
class Launch:
    """One process among those that train together.

    Parameters
    ----------
    rank, size : int
        Its number, and how many there are.
    local_rank : int
        Its number on its machine: which GPU it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


def read_launch(environ: Mapping[str, str]) -> Launch:
    """Find out who this process is, from what torchrun or srun set.

    Parameters
    ----------
    environ : mapping
        ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``; or ``SLURM_PROCID``, ``SLURM_LOCALID`` and
        ``SLURM_STEP_NUM_TASKS``, which exist in steps (srun) only, not in the job script itself.

    Raises
    ------
    UsageError
        `errors.BAD_VALUE`, when one of them is no number.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return Launch()
    numbers = []
    for name in names:
        value = environ.get(name, "0")
        if not value.isdigit():
            raise UsageError(BAD_VALUE.format(option=name, value=value, expected="expected a whole number"))
        numbers.append(int(value))
    return Launch(*numbers) if numbers[1] > 1 else Launch()


class Meeting:
    """Where the processes of one training meet.

    Parameters
    ----------
    launch : Launch
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._store: Any = None
        if launch.size > 1:
            _set_rendezvous(launch, os.environ)
            from torch.distributed.rendezvous import rendezvous

            self._store, _, _ = next(rendezvous("env://"))

    def announce(self, controls: Mapping[str, Path] | None) -> None:
        """Tell the others where the prepared controls are; None: there are none to train on."""
        if self._store is not None:
            paths = None if controls is None else {name: str(path) for name, path in controls.items()}
            self._store.set(CONTROLS, json.dumps(paths))

    def await_controls(self) -> dict[str, Path]:
        """Wait for what the first process announces.

        Raises
        ------
        TemporaryError
            `errors.NO_CONTROLS_SHARED`, when it has none, or is gone.
        """
        try:
            self._store.wait([CONTROLS], PREPROCESSING)
            paths = json.loads(self._store.get(CONTROLS))
        except RuntimeError as error:  # torch.distributed's errors: the store is gone
            raise TemporaryError(NO_CONTROLS_SHARED) from error
        if paths is None:
            raise TemporaryError(NO_CONTROLS_SHARED)
        return {name: Path(path) for name, path in paths.items()}

    @contextmanager
    def group(self, device: torch.device) -> Iterator[None]:
        """The process group of the training itself: NCCL between GPUs, Gloo otherwise (NCCL refuses a shared one)."""
        if self._store is None:
            yield
            return
        import torch
        from torch import distributed

        if device.type == "cuda":
            torch.cuda.set_device(device)
        store = distributed.distributed_c10d.PrefixStore("training", self._store)
        backend = "nccl" if self._own_gpus(device) else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=self.launch.rank, world_size=self.launch.size
        )
        try:
            yield
            distributed.barrier()  # the first process holds the store: it must not be gone before the others
        finally:
            distributed.destroy_process_group()

    def _own_gpus(self, device: torch.device) -> bool:
        """Whether each process has a GPU of its own; all find the same answer."""
        import torch

        own = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
        self._store.set(f"gpu/{self.launch.rank}", own)
        known = [self._store.get(f"gpu/{rank}") for rank in range(self.launch.size)]  # waits for all of them
        return b"" not in known and len(set(known)) == self.launch.size


def own_device(name: str, launch: Launch) -> torch.device:
    """Choose the torch device of one process: ``auto`` and ``cuda`` mean its own GPU where several processes train.

    Where a machine shows a process fewer GPUs than there are processes, they share: Slurm may show each its own alone.

    Raises
    ------
    TemporaryError
        `errors.NO_GPU`.
    """
    import torch

    from bids_wmh_uad.core.device import resolve_device

    found = resolve_device(name)
    if launch.size > 1 and found == "cuda":
        found = f"cuda:{launch.local_rank % torch.cuda.device_count()}"
    return torch.device(found)


def _set_rendezvous(launch: Launch, environ: Any) -> None:
    """Set what torch reads to find the first process; torchrun has done it already."""
    if "MASTER_ADDR" not in environ:
        nodes = environ.get("SLURM_STEP_NUM_NODES", "1")
        if nodes != "1":
            raise UsageError(NO_MASTER.format(nodes=nodes))
        environ["MASTER_ADDR"] = "127.0.0.1"
    environ.setdefault("MASTER_PORT", PORT)
    environ["RANK"], environ["WORLD_SIZE"] = str(launch.rank), str(launch.size)
