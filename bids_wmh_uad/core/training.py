"""The training loop of the siamese auto-encoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bids_wmh_uad.core.autoencoder import SiamesePatchAutoEncoder, siamese_loss
from bids_wmh_uad.errors import TRAINING_DIVERGED, TrainingError

Sampler = Callable[[int, np.random.Generator], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Draws n pairs: two (n, C, s, s) arrays (see `patches.PairSampler`)."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did.

    Parameters
    ----------
    epoch : int
        From 1.
    loss : float
        Mean training loss over the epoch's steps.
    error : float
        Mean squared reconstruction error summed over the patch, mean of both branches.
    similarity : float
        Mean cosine similarity of co-located latents.
    """

    epoch: int
    loss: float
    error: float
    similarity: float


def train(  # noqa: PLR0913 (all keywords)
    model: SiamesePatchAutoEncoder,
    sampler: Sampler,
    *,
    epochs: int,
    steps: int,
    batch_size: int,
    lr: float,
    alpha: float,
    generator: np.random.Generator,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> list[EpochResult]:
    """Train in place with Adam; the learning rate falls to zero along a half cosine.

    Deterministic on the CPU: the same initial weights, sampler, generator state
    and number of threads give the same weights.

    Parameters
    ----------
    model : SiamesePatchAutoEncoder
        Left in evaluation mode.
    sampler : callable
        ``sampler(n, generator)`` gives two arrays of n co-located patches.
    epochs, steps, batch_size : int
        Batches of `batch_size` pairs, `steps` batches an epoch.
    lr : float
        Initial learning rate.
    alpha : float
        Weight of the cosine term.
    generator : numpy.random.Generator
        The only source of randomness.
    on_epoch : callable, optional
        Told each `EpochResult` as it comes.

    Returns
    -------
    list of EpochResult

    Raises
    ------
    TrainingError
        `errors.TRAINING_DIVERGED`, when the loss is no longer finite.
    """
    device = next(model.parameters()).device
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(1, epochs * steps))
    history: list[EpochResult] = []
    model.train()
    for epoch in range(1, epochs + 1):
        total = np.zeros(3)
        for _ in range(steps):
            pair = sampler(batch_size, generator)
            optimiser.zero_grad()
            loss, parts = _step(model, (_tensor(pair[0], device), _tensor(pair[1], device)), alpha)
            if not math.isfinite(parts[0]):
                raise TrainingError(TRAINING_DIVERGED.format(epoch=epoch, loss=parts[0]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += parts
        result = EpochResult(epoch, *(total / max(1, steps)).tolist())
        history.append(result)
        if on_epoch is not None:
            on_epoch(result)
    model.eval()
    return history


def _tensor(patches: NDArray[np.float32], device: torch.device) -> Tensor:
    return torch.from_numpy(patches).to(device)


def _step(
    model: SiamesePatchAutoEncoder, pair: tuple[Tensor, Tensor], alpha: float
) -> tuple[Tensor, tuple[float, float, float]]:
    """Loss of one batch: both branches go through in one pass and share BatchNorm's statistics."""
    size = len(pair[0])
    guess, latents = model(torch.cat(pair))
    halves = (guess[:size], guess[size:])
    codes = (latents[:size], latents[size:])
    loss = siamese_loss(pair, halves, codes, alpha)
    with torch.no_grad():
        similarity = torch.nn.functional.cosine_similarity(codes[0], codes[1], dim=1).mean()
    value, cosine = float(loss.detach()), float(similarity)
    return loss, (value, value + alpha * cosine, cosine)
