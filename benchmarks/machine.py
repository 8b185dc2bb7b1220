"""What this machine is, and what it can do at best: the floors that the benchmarks quote."""

from __future__ import annotations

import os
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
    return {
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch_kernel": torch.backends.cpu.get_cpu_capability(),
        "numpy": np.__version__,
        "blas": blas,
    }


def kernel_seconds(elements: int, width: int) -> float:
    """Best time on all cores for Gaussian kernel values of latents of some width.

    ``width`` multiply-adds and one base-2 exponential a value, each at the best rate of one
    core, times the cores: no waiting at the end of each call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, block = torch.rand(1024, 1024), -torch.rand(2**17)
    result = torch.empty_like(block)
    products, exponentials = [], []
    for _ in range(20):
        start = perf_counter()
        torch.mm(left, left)
        products.append((perf_counter() - start) / 1024**3)
        start = perf_counter()
        torch.exp2(block, out=result)
        exponentials.append((perf_counter() - start) / len(block))
    torch.set_num_threads(threads)
    return elements * (width * min(products) + min(exponentials)) / threads
