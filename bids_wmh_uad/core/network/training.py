"""Training the siamese auto-encoder: a loop whose whole state can be taken out and put back."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from bids_wmh_uad.core.network.autoencoder import focus_window, siamese_loss
from bids_wmh_uad.core.network.distributed import gather_rows, spread_batch_norm, world
from bids_wmh_uad.core.network.guided import guidance
from bids_wmh_uad.core.network.plan import Plan
from bids_wmh_uad.errors import TRAINING_DIVERGED, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder

    Pair = tuple[NDArray[np.float32], NDArray[np.float32]]

READ_AHEAD = 2
"""Number of batches drawn while the network works on another: the network then seldom waits."""
State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and numbers that JSON can hold."""


class Batches(Protocol):
    """Draws the batch of a step: the same one whenever it is asked for it."""

    def __call__(self, step: int) -> Pair:
        """Return this process's share of a step's pairs: two (n, C, s, s) float32 arrays."""


@dataclass(frozen=True)
class Losses:
    """Means over pairs.

    Parameters
    ----------
    loss : float
        What is minimised.
    error : float
        Squared reconstruction error summed over the patch in its window, mean of both branches.
    similarity : float
        Cosine similarity of co-located latents.
    hinge : float
        `guided.guidance`; 0 without it.
    """

    loss: float
    error: float
    similarity: float
    hinge: float = 0.0


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did.

    Parameters
    ----------
    epoch : int
        From 1.
    training : Losses
        Mean over the epoch's steps, while the weights changed.
    held_out : Losses, optional
        At its end, on pairs of subjects that are never trained on.
    """

    epoch: int
    training: Losses
    held_out: Losses | None = None


@dataclass
class _Progress:
    """Where training is; numbers only."""

    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    best_epoch: int = 0
    best_loss: float = math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains a network, step by step.

    Deterministic on the CPU: the same initial weights, batches and number of threads give
    the same weights, bit for bit, however often training is interrupted and its `state` restored.
    With a process group (``torch.distributed``) every process trains on its share of each batch, and
    together they do what one process does with the whole.

    Parameters
    ----------
    model : SiameseAutoencoder
        On its device; trained in place. Every process must bring the same weights.
    plan : Plan
    batches : Batches
        Draws this process's share of a step.
    held_out : pair of (n, C, s, s) float32 arrays, optional
        Decides which epoch is best and when to stop; without it, the last one is.
    half_precision : torch.dtype, optional
        Of the network's arithmetic (automatic mixed precision); losses stay float32.
    """

    def __init__(
        self,
        model: SiameseAutoencoder,
        plan: Plan,
        batches: Batches,
        held_out: Pair | None = None,
        half_precision: torch.dtype | None = None,
    ) -> None:
        self.plan = plan
        self._model = model
        self._batches = batches
        self._held_out = held_out
        self._precision = half_precision
        self._device = next(model.parameters()).device
        self._window = focus_window(plan.focus, model.patch_size).to(self._device)
        self._network: nn.Module = model
        if world()[1] > 1:
            spread_batch_norm(model)
            self._network = DistributedDataParallel(model, broadcast_buffers=False)
        self._optimiser = torch.optim.Adam(model.parameters(), lr=plan.lr)
        self._best = _copy(model)
        self._now = _Progress()

    @property
    def history(self) -> list[EpochResult]:
        """What every finished epoch did."""
        return [_result(entry) for entry in self._now.history]

    @property
    def step(self) -> int:
        """Steps done."""
        return self._now.step

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights `run` leaves in the model; 0 before the first has ended."""
        return self._now.best_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience has run out."""
        done = len(self._now.history)
        patient = self._held_out is None or done - self._now.best_epoch < self.plan.patience
        return self._now.step >= self.plan.total or not patient

    def run(self, after_step: Callable[[bool], None] | None = None) -> list[EpochResult]:
        """Train to the end, from where the state is.

        Parameters
        ----------
        after_step : callable, optional
            Called after every step with whether an epoch has ended; the moment to take the state.

        Returns
        -------
        list of EpochResult
            The model has the best epoch's weights, in evaluation mode.

        Raises
        ------
        TrainingError
            `errors.TRAINING_DIVERGED`: the loss is no longer finite.
        """
        self._model.train()
        for pair in self._draw() if not self.finished else ():
            self._advance(pair)
            ended = self._now.step % self.plan.steps == 0
            if ended:
                self._end_epoch()
            if after_step is not None:
                after_step(ended)
            if self.finished:
                break
        self._model.load_state_dict(self._best)
        self._model.eval()
        return self.history

    def examples(self, number: int = 8) -> Pair | None:
        """Show some held-out patches and their reconstructions: two (number, C, s, s) arrays; None without any."""
        if self._held_out is None:
            return None
        patches = self._held_out[0][:number]
        was_training = self._model.training
        self._model.eval()
        with torch.inference_mode():
            reconstructions, _ = self._model(torch.from_numpy(patches).to(self._device))
        self._model.train(was_training)
        return patches, reconstructions.float().cpu().numpy()

    def state(self) -> State:
        """Everything that training goes on from: tensors, and numbers that JSON can hold.

        Raises
        ------
        TrainingError
            `errors.TRAINING_DIVERGED`: weights are not finite, and nothing to go on from.
        """
        tensors = {f"model.{name}": value for name, value in _copy(self._model).items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {
                f"adam.{number}.{name}": value.detach().cpu().clone() for name, value in moments.items()
            }
        for value in tensors.values():
            if not torch.isfinite(value).all():
                raise TrainingError(TRAINING_DIVERGED.format(epoch=self._epoch(), loss="nan"))
        return tensors, asdict(self._now)

    def restore(self, state: State) -> None:
        """Go back to a `state` of a trainer with the same plan, batches and architecture.

        Raises
        ------
        KeyError, RuntimeError, TypeError
            If it is no such state.
        """
        tensors, numbers = state
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "adam": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        self._model.load_state_dict(parts["model"])
        self._best = parts["best"]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["adam"].items():
            number, _, kind = name.partition(".")
            moments.setdefault(int(number), {})[kind] = value
        whole = self._optimiser.state_dict()
        self._optimiser.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
        self._now = _Progress(**numbers)

    def _epoch(self) -> int:
        return (max(self._now.step, 1) - 1) // self.plan.steps + 1

    def _draw(self) -> Iterator[Pair]:
        """Batches from the present step on, drawn in a thread while the network works."""
        with ThreadPoolExecutor(1) as pool:
            steps = iter(range(self._now.step, self.plan.total))
            ahead = [
                pool.submit(self._batches, step) for _, step in zip(range(READ_AHEAD), steps, strict=False)
            ]
            try:
                while ahead:
                    pair = ahead.pop(0).result()
                    ahead += [
                        pool.submit(self._batches, step) for step in [next(steps, None)] if step is not None
                    ]
                    yield pair
            finally:
                pool.shutdown(cancel_futures=True)

    def _advance(self, pair: Pair) -> None:
        """One step of Adam."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.plan.rate(self._now.step)
        self._optimiser.zero_grad()
        loss, parts = self._losses(self._network, pair)
        self._now.step += 1
        values = parts.tolist()
        if not math.isfinite(values[0]):
            raise TrainingError(TRAINING_DIVERGED.format(epoch=self._epoch(), loss=values[0]))
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._now.sums = [total + value for total, value in zip(self._now.sums, values, strict=True)]

    def _losses(self, network: nn.Module, pair: Pair) -> tuple[Tensor, Tensor]:
        """Loss of a batch, and what `Losses` holds: both branches pass at once and share BatchNorm's statistics."""
        first, second = (torch.from_numpy(patches).to(self._device, non_blocking=True) for patches in pair)
        with torch.autocast(self._device.type, self._precision, enabled=self._precision is not None):
            both, latents = network(torch.cat([first, second]))
        reconstructions, codes = both.float().chunk(2), latents.float().chunk(2)
        plan, hinge = self.plan, latents.new_zeros(())
        loss = siamese_loss(
            (first, second),
            (reconstructions[0], reconstructions[1]),
            (codes[0], codes[1]),
            plan.alpha,
            self._window,
        )
        with torch.no_grad():
            similarity = functional.cosine_similarity(codes[0], codes[1], dim=1).mean()
            error = loss + plan.alpha * similarity
        if plan.objective == "ocsvm-guided":
            whole = [gather_rows(branch) for branch in codes] if self._model.training else codes
            hinge = guidance((whole[0], whole[1]), plan.nu)
            loss = loss + plan.guidance * hinge
        parts = [value.detach().double() for value in (loss, error, similarity, hinge)]
        return loss, torch.stack(parts)

    def _end_epoch(self) -> None:
        """Mean losses, held-out losses, and whether this epoch is the best so far."""
        now = self._now
        means = torch.tensor(now.sums, dtype=torch.float64, device=self._device) / self.plan.steps
        held_out = torch.full((4,), math.nan, dtype=torch.float64, device=self._device)
        rank, size = world()
        if self._held_out is not None and rank == 0:
            held_out = self._evaluate(self._held_out)
        if size > 1:
            distributed.all_reduce(means)
            means /= size
            distributed.broadcast(
                held_out, 0
            )  # one decision: processes on other machines may round otherwise
        epoch = len(now.history) + 1
        kept = asdict(Losses(*held_out.tolist())) if self._held_out is not None else None
        now.history.append({"epoch": epoch, "training": asdict(Losses(*means.tolist())), "held_out": kept})
        now.sums = [0.0] * 4
        loss = kept["loss"] if kept else -float(epoch)  # without held-out subjects the latest is the best
        if loss < now.best_loss:
            now.best_epoch, now.best_loss = epoch, loss
            self._best = _copy(self._model)

    def _evaluate(self, pair: Pair) -> Tensor:
        """Mean losses of pairs, in evaluation mode."""
        self._model.eval()
        size = len(pair[0])
        chunk = min(size, 512)
        with torch.no_grad():
            parts = [
                self._losses(self._model, (pair[0][start : start + chunk], pair[1][start : start + chunk]))[1]
                for start in range(0, size - chunk + 1, chunk)
            ]
        self._model.train()
        return torch.stack(parts).mean(0)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _result(entry: dict[str, Any]) -> EpochResult:
    held_out = Losses(**entry["held_out"]) if entry["held_out"] is not None else None
    return EpochResult(entry["epoch"], Losses(**entry["training"]), held_out)
