"""Model directories: weights as safetensors, everything else as JSON; never pickle."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.errors import BAD_MODEL, ModelError
from bids_wmh_uad.files import dump_json, write_atomically

if TYPE_CHECKING:
    from bids_wmh_uad.core.autoencoder import SiamesePatchAutoEncoder
    from bids_wmh_uad.core.voxelwise import VoxelwiseOneClassSVM

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
VOXELWISE = "voxelwise.safetensors"
FORMAT_VERSION = 1


def _bad(path: Path | str, reason: object) -> ModelError:
    return ModelError(BAD_MODEL.format(path=path, reason=reason))


def model_directory(name_or_dir: str | Path) -> Path:
    """Find a model: a directory, or the name of one that ships with the package ("default").

    Parameters
    ----------
    name_or_dir : str or Path
        A bare name is looked up among the shipped models first.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`, when there is neither.
    """
    text = str(name_or_dir)
    if text and text == Path(text).name and text not in (".", ".."):
        shipped = Path(str(resources.files("bids_wmh_uad") / "data" / "models" / text))
        if (shipped / DESCRIPTION).is_file():
            return shipped
    if text and Path(text).is_dir():
        return Path(text)
    raise _bad(name_or_dir, "no such model or directory")


def save_model(model: SiamesePatchAutoEncoder, directory: str | Path, metadata: dict[str, Any]) -> Path:
    """Write a model directory; each file appears whole or not at all, the description last.

    Parameters
    ----------
    model : SiamesePatchAutoEncoder
    directory : str or Path
        Made when it does not exist.
    metadata : dict
        JSON values: training set summary (no identities), seed, metrics. The keys
        ``format_version``, ``architecture``, ``input``, ``weights_sha256`` and ``versions`` are
        added here.

    Returns
    -------
    Path of the directory.

    Raises
    ------
    CannotCreateError
        `errors.CANNOT_CREATE`, when it cannot be written.
    """
    from safetensors.torch import save

    target = Path(directory)
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    weights = save(state)
    description = {
        **metadata,
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture(),
        "input": _input_constants(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "versions": _versions(),
    }
    write_atomically(target / WEIGHTS, weights)
    write_atomically(target / DESCRIPTION, dump_json(description))
    return target


def load_model(name_or_dir: str | Path = "default") -> tuple[SiamesePatchAutoEncoder, dict[str, Any]]:
    """Load a model in evaluation mode, on the CPU.

    Parameters
    ----------
    name_or_dir : str or Path
        "default" or a directory made by `save_model`.

    Returns
    -------
    model : SiamesePatchAutoEncoder
    metadata : dict
        The whole of ``model.json``.

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`: unknown, unreadable, altered, or made for another program version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from bids_wmh_uad.core.autoencoder import autoencoder_for

    directory = model_directory(name_or_dir)
    metadata, weights = _read(directory)
    if metadata.get("input") != _input_constants():
        raise _bad(directory, "made for other input constants")
    try:
        model = autoencoder_for(metadata["architecture"])
        model.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _bad(directory, error) from error
    model.eval()
    return model, metadata


def save_voxelwise(model: VoxelwiseOneClassSVM, directory: str | Path) -> Path:
    """Add voxel-wise One-Class SVMs to a model directory; the file appears whole or not at all.

    Parameters
    ----------
    model : VoxelwiseOneClassSVM
    directory : str or Path
        Made when it does not exist.

    Returns
    -------
    Path of the file.

    Raises
    ------
    CannotCreateError
        `errors.CANNOT_CREATE`, when it cannot be written.
    """
    from safetensors.torch import save

    path = Path(directory) / VOXELWISE
    tensors = {name: tensor.contiguous() for name, tensor in vars(model).items()}
    write_atomically(path, save(tensors, metadata={"format_version": str(FORMAT_VERSION)}))
    return path


def load_voxelwise(name_or_dir: str | Path) -> VoxelwiseOneClassSVM:
    """Open the voxel-wise One-Class SVMs of a model directory, memory-mapped: pages are read as needed.

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`: there are none, or the file is corrupt.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from bids_wmh_uad.core.voxelwise import VoxelwiseOneClassSVM

    path = model_directory(name_or_dir) / VOXELWISE
    try:
        return VoxelwiseOneClassSVM(**load_file(path))
    except (OSError, SafetensorError, TypeError) as error:
        raise _bad(path, error) from error


def model_digest(name_or_dir: str | Path) -> str:
    """Identify a model by the SHA-256 of its weights (hexadecimal).

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`, as `load_model`.
    """
    _, weights = _read(model_directory(name_or_dir))
    return hashlib.sha256(weights).hexdigest()


def _read(directory: Path) -> tuple[dict[str, Any], bytes]:
    """Read both files and check that they belong together."""
    try:
        metadata = json.loads((directory / DESCRIPTION).read_text(encoding="utf-8"))
        weights = (directory / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise _bad(directory, error) from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("architecture"), dict):
        raise _bad(directory, f"{DESCRIPTION} describes no architecture")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise _bad(directory, f"format version {metadata.get('format_version')} instead of {FORMAT_VERSION}")
    if metadata.get("weights_sha256") != hashlib.sha256(weights).hexdigest():
        raise _bad(directory, f"{WEIGHTS} is not the file that {DESCRIPTION} describes")
    return metadata, weights


def _input_constants() -> dict[str, Any]:
    """Describe what the network's input means: a model is only valid with the constants it was trained on."""
    from bids_wmh_uad.core.patches import BACKGROUND, PATCH_SIZE, SQUASH_WIDTH

    return {
        "channels": ["FLAIR", "T1w"],
        "patch_size": PATCH_SIZE,
        "spacing_mm": 1.0,
        "normalisation": "robust z against the white-matter mode (1.4826 MAD)",
        "squash": "logistic",
        "squash_width": SQUASH_WIDTH,
        "background": BACKGROUND,
    }


def _versions() -> dict[str, str]:
    import numpy as np
    import torch

    from bids_wmh_uad import __version__

    return {"bids-wmh-uad": __version__, "numpy": np.__version__, "torch": str(torch.__version__)}
