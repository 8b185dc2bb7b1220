"""From prepared controls to a model directory: held-out participants, checkpoints, progress, report.

Everything training depends on is in `training_settings`: a checkpoint goes on only under the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bids_wmh_uad.config import TrainConfig
from bids_wmh_uad.core.network.sampling import BatchSampler, PairSampler
from bids_wmh_uad.errors import BAD_CHECKPOINT, BAD_VALUE, TRAINING_REPORT_FAILED, TrainingError, UsageError
from bids_wmh_uad.imaging import templates
from bids_wmh_uad.imaging.controls import open_control
from bids_wmh_uad.models import DESCRIPTION_FILE, save_model
from bids_wmh_uad.reading import read_object
from bids_wmh_uad.train.checkpoints import CHECKPOINT, load_checkpoint, save_checkpoint
from bids_wmh_uad.train.launch import Meeting

if TYPE_CHECKING:
    import torch

    from bids_wmh_uad.core.network.plan import Plan
    from bids_wmh_uad.core.network.training import EpochResult, Pair, Trainer

LOGGER = logging.getLogger("bids_wmh_uad")
TEMPLATE_STEP_MM = 2
CHECKPOINT_SECONDS = 600.0
"""A longer epoch is saved in its course, too."""
HELD_OUT_PAIRS = 4096
HELD_OUT_SUBJECTS = 32
"""At most: more would say little more, and all are open while their pairs are drawn."""
MINIMUM_TO_HOLD_OUT = 5
REPORT = "train.html"


def learn(controls: Mapping[str, Path], config: TrainConfig, meeting: Meeting, device: torch.device) -> None:
    """Train on prepared controls and write the model directory.

    Parameters
    ----------
    controls : mapping
        Prepared controls (`imaging.controls`) by session label.
    config : TrainConfig
    meeting : Meeting
        Of the processes that train together.
    device : torch.device
        This process's.

    Raises
    ------
    UsageError
        If the batch cannot be shared between the processes.
    TrainingError
        If training diverges (the last checkpoint stays), or cannot be resumed.
    """
    from bids_wmh_uad.core.device import configure_torch

    training = config.training
    configure_torch(config.performance.omp_nthreads)
    labels = sorted(controls)
    held_out = held_out_labels(labels, training.held_out, config.method.random_seed)
    settings = training_settings(controls, config)
    if training.resume and _finished(training.output_model, settings):
        LOGGER.info("%s was trained with these settings and controls: nothing to do", training.output_model)
        return
    with meeting.group(device):
        trainer, model = _trainer(controls, held_out, config, meeting, device)
        checkpoint = training.output_model / CHECKPOINT
        if training.resume and checkpoint.is_file():
            _restore(trainer, checkpoint, settings)
        elif checkpoint.is_file() and meeting.launch.rank == 0:
            LOGGER.warning("%s is replaced; --resume would have gone on with it", checkpoint)
        if meeting.launch.rank > 0:
            trainer.run()
            return
        shown = len(labels) - len(held_out), len(held_out)
        LOGGER.info("training on %d participants, %d held out", *shown)
        journal = Journal(trainer, config, settings, shown)
        with logging_redirect_tqdm([LOGGER]), journal:
            trainer.run(journal)
    save_model(model, training.output_model, _description(trainer, config, settings, shown))
    checkpoint.unlink(missing_ok=True)
    journal.report()


def held_out_labels(labels: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Choose the participants that are never trained on.

    Parameters
    ----------
    labels : sequence of str
        One session of each participant.
    fraction : float
        At least two are held out, for pairs are of two; of fewer than five participants none, and
        none with a fraction of 0.
    seed : int
    """
    if fraction == 0 or len(labels) < MINIMUM_TO_HOLD_OUT:
        return set()
    number = min(HELD_OUT_SUBJECTS, max(2, round(fraction * len(labels))))
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    return {labels[index] for index in order[:number]}


def training_settings(controls: Mapping[str, Path], config: TrainConfig) -> dict[str, Any]:
    """Everything the weights depend on, by the name users know; JSON values."""
    training, method = config.training, config.method
    settings: dict[str, Any] = {
        "--encoder": training.encoder,
        "--objective": training.objective,
        "--epochs": training.epochs,
        "--patches-per-epoch": training.patches_per_epoch,
        "--batch-size": training.batch_size,
        "--alpha": training.alpha,
        "--focus": training.focus,
        "--held-out": training.held_out,
        "--patience": training.patience,
        "--random-seed": method.random_seed,
        "the number of controls": len(controls),
        "the controls' digest": _digest(controls),
    }
    if training.objective == "ocsvm-guided":
        settings |= {"--guidance": training.guidance, "--nu": method.nu}
    return settings


def _digest(controls: Mapping[str, Path]) -> str:
    """Identify the controls by their grids and their middle slices: 500 whole ones take minutes to read."""
    digest = hashlib.sha256()
    for label in sorted(controls):
        subject = open_control(controls[label])
        middle = subject.mask.shape[2] // 2
        digest.update(f"{label} {subject.image.shape}".encode())
        digest.update(np.ascontiguousarray(subject.mni_to_voxel).tobytes())
        for values in (subject.image[..., middle], subject.mask[..., middle]):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def _settings_digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _finished(directory: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a directory holds the model that these settings and controls make."""
    try:
        description = read_object(directory / DESCRIPTION_FILE)
        return bool(description["training"]["settings_sha256"] == _settings_digest(settings))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def make_plan(config: TrainConfig) -> Plan:
    """Translate the settings for `core.training`."""
    from bids_wmh_uad.core.network.plan import Plan

    training = config.training
    return Plan(
        epochs=training.epochs,
        steps=max(1, training.patches_per_epoch // training.batch_size),
        alpha=training.alpha,
        focus=training.focus,  # mm are voxels on the working grid
        objective=training.objective,
        nu=config.method.nu,
        guidance=training.guidance,
        patience=training.patience,
    )


def _trainer(
    controls: Mapping[str, Path],
    held_out: set[str],
    config: TrainConfig,
    meeting: Meeting,
    device: torch.device,
) -> tuple[Trainer, Any]:
    """Put the network, its batches and the held-out pairs together."""
    import torch

    from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    from bids_wmh_uad.core.network.training import Trainer

    training, seed, launch = config.training, config.method.random_seed, meeting.launch
    if training.batch_size % launch.size:
        expected = f"expected a multiple of the {launch.size} processes"
        raise UsageError(
            BAD_VALUE.format(option="--batch-size", value=training.batch_size, expected=expected)
        )
    share = training.batch_size // launch.size
    paths = [controls[label] for label in sorted(controls) if label not in held_out]
    coordinates = template_coordinates()
    batches = BatchSampler(
        len(paths),
        lambda index: open_control(paths[index]),
        coordinates,
        batch_size=training.batch_size,
        seed=seed,
        rows=slice(launch.rank * share, (launch.rank + 1) * share),
        spread_mm=TEMPLATE_STEP_MM,
    )
    pairs = None
    if held_out:
        unseen = [open_control(controls[label]) for label in sorted(held_out)]
        pairs = held_out_pairs(unseen, coordinates, seed)
    model = build_autoencoder(seed, encoder=training.encoder).to(device)
    half = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported(False) else None
    return Trainer(model, make_plan(config), batches, pairs, half), model


def held_out_pairs(subjects: Sequence[Any], coordinates: NDArray[np.float64], seed: int) -> Pair:
    """Pairs of the held-out participants, as they are: no change of contrast."""
    sampler = PairSampler(subjects, coordinates, spread_mm=TEMPLATE_STEP_MM, contrast=0.0, shift=0.0)
    return sampler(HELD_OUT_PAIRS, np.random.default_rng([seed, 3]))


def _restore(trainer: Trainer, checkpoint: Path, settings: Mapping[str, Any]) -> None:
    try:
        trainer.restore(load_checkpoint(checkpoint, settings))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(BAD_CHECKPOINT.format(path=checkpoint, reason=error)) from error
    LOGGER.info("going on after %d of %d steps (%s)", trainer.step, trainer.plan.total, checkpoint)


class Journal:
    """What the first process does after each step: progress, checkpoints and the report.

    Parameters
    ----------
    trainer : Trainer
    config : TrainConfig
    settings : mapping
        See `training_settings`.
    participants : (int, int)
        Trained on, and held out.
    """

    def __init__(
        self,
        trainer: Trainer,
        config: TrainConfig,
        settings: Mapping[str, Any],
        participants: tuple[int, int],
    ) -> None:
        self._trainer, self._config, self._settings = trainer, config, settings
        self._participants = participants
        self._path = config.training.output_model / CHECKPOINT
        self._begun = self._saved = time.monotonic()
        self._first = trainer.step
        total = trainer.plan.total
        self._bar = tqdm(total=total, initial=trainer.step, unit="step", disable=None, leave=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, epoch_ended: bool) -> None:
        """After a step."""
        self._bar.update()
        if epoch_ended or time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            save_checkpoint(self._path, self._trainer.state(), self._settings)
            self._saved = time.monotonic()
        if epoch_ended:
            self._say(self._trainer.history[-1])
            self.report()

    def _say(self, result: EpochResult) -> None:
        step, total = self._trainer.step, self._trainer.plan.total
        left = self._seconds() / max(1, step - self._first) * (total - step)
        held_out = f", held out {result.held_out.loss:.4f}" if result.held_out else ""
        LOGGER.info(
            "epoch %d/%d: loss %.4f%s, reconstruction error %.4f, similarity %.4f, %.0f s left",
            result.epoch, self._trainer.plan.epochs, result.training.loss, held_out,
            result.training.error, result.training.similarity, left,
        )  # fmt: skip

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def report(self) -> None:
        """Write the page as far as training has come; no failure of a picture stops the training."""
        from bids_wmh_uad.reports.training import write_training_report

        path = self._config.output_dir / REPORT
        try:
            write_training_report(
                path,
                history=self._trainer.history,
                best_epoch=self._trainer.best_epoch,
                plan=asdict(self._trainer.plan),
                finished=self._trainer.finished,
                settings=self._settings,
                participants=self._participants,
                seconds=self._seconds(),
                examples=self._trainer.examples(),
            )
        except Exception as error:  # a picture must not cost hours of training
            LOGGER.warning(TRAINING_REPORT_FAILED.format(reason=error))
            LOGGER.debug("", exc_info=True)


def _description(
    trainer: Trainer, config: TrainConfig, settings: Mapping[str, Any], participants: tuple[int, int]
) -> dict[str, Any]:
    """What ``model.json`` says of the training: no label, no path, no time."""
    training, plan = config.training, trainer.plan
    best = trainer.history[trainer.best_epoch - 1]
    guided = {"nu": plan.nu, "guidance": plan.guidance} if plan.objective == "ocsvm-guided" else {}
    return {
        "name": training.output_model.name,
        "training": {
            "sessions": participants[0],
            "held_out_sessions": participants[1],
            "objective": plan.objective,
            **guided,
            "epochs": len(trainer.history),
            "best_epoch": trainer.best_epoch,
            "patch_pairs": trainer.step * training.batch_size,
            "batch_size": training.batch_size,
            "alpha": training.alpha,
            "focus_mm": training.focus,
            "learning_rate": plan.lr,
            "seed": config.method.random_seed,
            "losses": asdict(best.training),
            "held_out_losses": asdict(best.held_out) if best.held_out else None,
            "settings_sha256": _settings_digest(settings),
        },
    }


def template_coordinates() -> NDArray[np.float64]:
    """Template brain locations in mm, shape (m, 3), on a regular grid."""
    template = templates.template("T1w", resolution=TEMPLATE_STEP_MM)
    voxels = np.argwhere(templates.template_brain(template))
    coordinates: NDArray[np.float64] = voxels @ template.affine[:3, :3].T + template.affine[:3, 3]
    return coordinates
