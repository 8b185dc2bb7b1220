"""Checkpoints of training: tensors, numbers and settings in one safetensors file, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.errors import BAD_CHECKPOINT, RESUME_DIFFERS, TrainingError
from bids_wmh_uad.files import write_atomically
from bids_wmh_uad.reading import require_small_header

if TYPE_CHECKING:
    from bids_wmh_uad.core.network.training import State

CHECKPOINT = "checkpoint.safetensors"
FORMAT_VERSION = 1


def save_checkpoint(path: Path, state: State, settings: Mapping[str, Any]) -> None:
    """Write a state with the settings it belongs to.

    Parameters
    ----------
    path : Path
        Replaced in one step.
    state : State
        Of `core.training.Trainer`.
    settings : mapping
        Everything that training depends on, JSON values by the name users know.

    Raises
    ------
    CannotCreateError, StorageError
        If it cannot be written.
    """
    from safetensors.torch import save

    tensors, numbers = state
    header = {"format_version": FORMAT_VERSION, "settings": dict(settings), "numbers": numbers}
    content = save(
        {name: value.contiguous() for name, value in tensors.items()}, {"training": json.dumps(header)}
    )
    write_atomically(path, content)


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> State:
    """Read a state that was saved with the same settings.

    Raises
    ------
    TrainingError
        `errors.RESUME_DIFFERS`, naming the first setting that differs; `errors.BAD_CHECKPOINT`,
        when the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        require_small_header(path)
        with safe_open(path, "pt") as content:
            header = json.loads((content.metadata() or {})["training"])
            if not isinstance(header, dict) or not isinstance(header["settings"], dict):
                raise TypeError("it does not say what it belongs to")  # noqa: TRY301
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
        numbers, old = header["numbers"], header["settings"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(BAD_CHECKPOINT.format(path=path, reason=error)) from error
    if header.get("format_version") != FORMAT_VERSION:
        raise TrainingError(BAD_CHECKPOINT.format(path=path, reason="made by another version"))
    require_same_settings(path, old, settings)
    return tensors, numbers


def require_same_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings or controls.

    Raises
    ------
    TrainingError
        `errors.RESUME_DIFFERS`.
    """
    for name in [*new, *old]:
        if old.get(name) != new.get(name):
            raise TrainingError(
                RESUME_DIFFERS.format(path=path, name=name, old=old.get(name), new=new.get(name))
            )
