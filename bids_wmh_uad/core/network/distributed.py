"""Several processes that train one network: the same arithmetic as one process with the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


def world() -> tuple[int, int]:
    """Number of this process and how many there are; (0, 1) without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def total(values: Tensor) -> Tensor:
    """Sum over the processes; gradients flow back to every one of them."""
    summed: Tensor = values if world()[1] == 1 else all_reduce(values.clone())  # type: ignore[no-untyped-call]
    return summed


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes below each other, (n, ...) -> (processes x n, ...); gradients flow back.

    A sum of arrays that are 0 but for one process's rows: every backend can do that.
    """
    rank, size = world()
    if size == 1:
        return rows
    share = torch.zeros(size, device=rows.device, dtype=rows.dtype)
    share[rank] = 1
    return total(share.reshape(-1, *[1] * rows.ndim) * rows[None]).flatten(0, 1)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose batch is that of all processes.

    torch's SyncBatchNorm exists on GPUs only; without it, two processes with half of the
    batch each are another network than one with the whole. Mean first, then the centred
    squares: nothing cancels.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise (n, C, X, Y) maps."""
        if not self.training:
            normalised: Tensor = super().forward(maps)
            return normalised
        count = maps.numel() // maps.shape[1] * world()[1]
        values = maps.float()
        mean = total(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = total(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)


def spread_batch_norm(model: nn.Module) -> None:
    """Make every BatchNorm of a network count the batches of all processes; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
