"""What this machine is, and what it can do at best: the floors that the benchmarks quote."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np  # its BLAS is what is looked at
import torch
from threadpoolctl import threadpool_info


def machine() -> dict[str, Any]:
    """Cores, torch's threads and vector instructions, and each BLAS with the kernel it runs: all change ratios."""
    blas = {
        f"{library['prefix']} {library['version']}": f"{library.get('architecture')}, {library['num_threads']} threads"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        **gpu,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch_kernel": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "blas": blas,
    }


def device_option(parser: argparse.ArgumentParser) -> None:
    """``--device``, for the benchmarks that also run on a GPU."""
    parser.add_argument("--device", default="cpu", metavar="{cpu,cuda[:N]}")


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, and of what it has left a GPU to do."""
    wait()
    start = perf_counter()
    function()
    wait()
    return perf_counter() - start


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def copy_rate(device: str) -> float:
    """Bytes a second, read and written together, of the best of a few copies within a device's memory."""
    source = torch.ones(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / min(seconds(partial(target.copy_, source)) for _ in range(10))


def kernel_seconds(elements: int, width: int, device: str = "cpu") -> float:
    """Best time of a whole device for Gaussian kernel values of latents of some width.

    ``width`` multiply-adds and one base-2 exponential a value, each at its best rate; on a CPU that of one
    core, times the cores: no waiting at the end of each call.
    """
    edge, count, cores = (1024, 2**17, torch.get_num_threads()) if device == "cpu" else (8192, 2**28, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, block = torch.rand(edge, edge, device=device), -torch.rand(count, device=device)
    product, result = torch.empty_like(left), torch.empty_like(block)
    products = min(seconds(partial(torch.mm, left, left, out=product)) for _ in range(20)) / edge**3
    exponentials = min(seconds(partial(torch.exp2, block, out=result)) for _ in range(20)) / count
    torch.set_num_threads(threads)
    return elements * (width * products + exponentials) / cores
