"""Model directories: weights as safetensors, everything else as JSON; never pickle."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.core.lesion.decision import LesionDecision
from bids_wmh_uad.errors import BAD_DECISION, BAD_MODEL, ModelError
from bids_wmh_uad.files import dump_json, whole_file, write_atomically
from bids_wmh_uad.reading import read_bytes, read_object, require_small_header, sha256

if TYPE_CHECKING:
    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder
    from bids_wmh_uad.core.svm.kernel import KernelSum
    from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM


WEIGHTS_FILE = "model.safetensors"
"""Name of the file with the encoder's and decoder's weights."""
DESCRIPTION_FILE = "model.json"
"""Name of the file that says what a model is."""
ONE_CLASS_FILES = {"pooled": "pooled.safetensors", "voxel": "voxelwise.safetensors"}
"""Names of the files with the controls' One-Class SVMs, by paradigm."""
DECISION_FILE = "decision.json"
"""Name of the file with the weights of the lesion decision, where a model has its own."""
MAX_WEIGHTS_BYTES = 2**28
"""Largest file of an encoder's weights, bytes: the wide one takes a few million."""
FORMAT_VERSION = 1
"""Number of the format of a model directory: raised when older programs can no longer read it."""


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
        if (shipped / DESCRIPTION_FILE).is_file():
            return shipped
    if text and Path(text).is_dir():
        return Path(text)
    raise _bad(name_or_dir, "no such model or directory")


def save_model(model: SiameseAutoencoder, directory: str | Path, metadata: dict[str, Any]) -> Path:
    """Write a model directory; each file appears whole or not at all, the description last.

    Parameters
    ----------
    model : SiameseAutoencoder
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
    write_atomically(target / WEIGHTS_FILE, weights)
    (target / DECISION_FILE).unlink(missing_ok=True)  # it was for other weights
    write_atomically(target / DESCRIPTION_FILE, dump_json(description))
    return target


def load_model(name_or_dir: str | Path = "default") -> tuple[SiameseAutoencoder, dict[str, Any]]:
    """Load a model in evaluation mode, on the CPU.

    Parameters
    ----------
    name_or_dir : str or Path
        "default" or a directory made by `save_model`.

    Returns
    -------
    model : SiameseAutoencoder
    metadata : dict
        The whole of ``model.json``.

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`: unknown, unreadable, altered, or made for another program version.

    Examples
    --------
    >>> from bids_wmh_uad import load_model
    >>> model, metadata = load_model("default")
    >>> model.latent_size, metadata["input"]["channels"]
    (16, ['FLAIR', 'T1w'])
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from bids_wmh_uad.core.network.autoencoder import autoencoder_for, give_weights

    directory = model_directory(name_or_dir)
    metadata, content = _read(directory)
    if metadata.get("input") != _input_constants():
        raise _bad(directory, "made for other input constants")
    try:
        model = autoencoder_for(metadata["architecture"])
    except ValueError as error:
        raise _bad(directory, error) from error
    try:
        require_small_header(directory / WEIGHTS_FILE)
        give_weights(model, load(content))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _bad(directory / WEIGHTS_FILE, " ".join(str(error).split())) from error
    return model, metadata


def save_one_class(model: KernelSum | VoxelwiseOneClassSVM, directory: str | Path) -> str:
    """Add One-Class SVMs of controls to a model directory; streamed, the file appears whole or not at all.

    They count once `describe_one_class` has put the SHA-256 into the description.

    Parameters
    ----------
    model : KernelSum or VoxelwiseOneClassSVM
        Of the *pooled* or the *voxel* paradigm.
    directory : str or Path
        Made when it does not exist.

    Returns
    -------
    str
        SHA-256 of the file (hexadecimal).

    Raises
    ------
    CannotCreateError
        `errors.CANNOT_CREATE`, when it cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from bids_wmh_uad.core.svm.kernel import KernelSum

    path = Path(directory) / ONE_CLASS_FILES["pooled" if isinstance(model, KernelSum) else "voxel"]
    tensors = {name: torch.as_tensor(value).contiguous() for name, value in vars(model).items()}
    with whole_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format_version": str(FORMAT_VERSION)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return sha256(path).hexdigest()


def describe_one_class(directory: str | Path, paradigms: dict[str, Any], training: dict[str, Any]) -> None:
    """Say in the description which One-Class SVMs there are.

    Parameters
    ----------
    directory : str or Path
        From `save_model`.
    paradigms : dict
        For each paradigm what was fitted, with the file's ``sha256``; or ``{"skipped": why}``.
    training : dict
        Further keys of the description's ``training``.
    """
    path = Path(directory) / DESCRIPTION_FILE
    description, _ = _read(Path(directory))
    training = {**description.get("training", {}), **training}
    write_atomically(path, dump_json({**description, "one_class": paradigms, "training": training}))


def about_one_class(name_or_dir: str | Path, paradigm: str) -> dict[str, Any]:
    """What the description says of a paradigm's One-Class SVMs; empty for *patient*, which has none.

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`: the model has none; if they were left out on purpose, the reason is said.
    """
    if paradigm == "patient":
        return {}
    directory = model_directory(name_or_dir)
    metadata, _ = _read(directory)
    known = metadata.get("one_class")
    entry = known.get(paradigm) if isinstance(known, dict) else None
    if not isinstance(entry, dict) or "sha256" not in entry:
        reason = entry.get("skipped") if isinstance(entry, dict) else None
        raise _bad(directory, f"it has no {paradigm} One-Class SVM" + (f": {reason}" if reason else ""))
    return entry


def load_one_class(name_or_dir: str | Path, paradigm: str) -> KernelSum | VoxelwiseOneClassSVM:
    """Open the One-Class SVMs of a model directory, memory-mapped: pages are read as needed.

    Parameters
    ----------
    name_or_dir : str or Path
    paradigm : {"pooled", "voxel"}

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`: there are none, or the file is corrupt or another model's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from bids_wmh_uad.core.svm.kernel import KernelSum
    from bids_wmh_uad.core.svm.voxelwise import VoxelwiseOneClassSVM

    path = _one_class_file(name_or_dir, paradigm)
    try:
        require_small_header(path)
        tensors = load_file(path)
        if paradigm == "voxel":
            model = VoxelwiseOneClassSVM(**tensors)
            model.check()
            return model
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise ValueError("its arrays are no floating-point numbers")  # noqa: TRY301
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        arrays |= {name: float(arrays[name]) for name in ("gamma", "offset")}
        pooled = KernelSum(**arrays)
        pooled.check()
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, IndexError, ValueError) as error:
        raise _bad(path, error) from error
    return pooled


def _one_class_file(name_or_dir: str | Path, paradigm: str) -> Path:
    """A paradigm's file, whose content is what the description says."""
    entry = about_one_class(name_or_dir, paradigm)
    path = model_directory(name_or_dir) / ONE_CLASS_FILES[paradigm]
    try:
        same = sha256(path).hexdigest() == entry["sha256"]
    except OSError as error:
        raise _bad(path, error) from error
    if not same:
        raise _bad(path, f"it is not the file that {DESCRIPTION_FILE} describes")
    return path


def model_digest(name_or_dir: str | Path, paradigm: str = "patient") -> str:
    """Identify all of a model that a paradigm uses, by SHA-256 (hexadecimal).

    Raises
    ------
    ModelError
        `errors.BAD_MODEL`, as `load_model` and `load_one_class`.
    """
    _, weights = _read(model_directory(name_or_dir))
    digest = hashlib.sha256(weights)
    if paradigm != "patient":
        digest.update(sha256(_one_class_file(name_or_dir, paradigm)).hexdigest().encode())
    decision = model_directory(name_or_dir) / DECISION_FILE
    if _is_there(decision):
        try:
            digest.update(read_bytes(decision))
        except OSError as error:
            raise _bad(decision, error) from error
    return digest.hexdigest()


def save_decision(decision: LesionDecision, directory: str | Path, about: dict[str, Any]) -> None:
    """Add the weights of the lesion decision to a model directory.

    Parameters
    ----------
    decision : LesionDecision
    directory : str or Path
        Of a model: the decision's direction lies in the latent space of its weights.
    about : dict
        JSON values: what the weights were learnt from.
    """
    metadata, _ = _read(Path(directory))
    content = {"weights_sha256": metadata["weights_sha256"], "about": about, "decision": asdict(decision)}
    write_atomically(Path(directory) / DECISION_FILE, dump_json(content))


def load_decision(name_or_dir: str | Path, latent_size: int | None = None) -> LesionDecision:
    """Load the weights of a model's lesion decision; those without a network where it has none.

    Parameters
    ----------
    name_or_dir : str or Path
    latent_size : int, optional
        Number of latents that the decision must be for, if it looks at any.

    Raises
    ------
    ModelError
        `errors.BAD_DECISION`: unreadable, or of other weights.
    """
    directory = model_directory(name_or_dir)
    path = directory / DECISION_FILE
    if not _is_there(path):
        return LesionDecision()
    metadata, _ = _read(directory)
    try:
        content = read_object(path)
        decision = LesionDecision.of(content["decision"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(BAD_DECISION.format(path=path, reason=error)) from error
    if content.get("weights_sha256") != metadata["weights_sha256"]:
        raise ModelError(BAD_DECISION.format(path=path, reason="made for other weights"))
    if latent_size is not None and decision.latent and len(decision.latent) != latent_size:
        reason = f"for {len(decision.latent)} latents, not {latent_size}"
        raise ModelError(BAD_DECISION.format(path=path, reason=reason))
    return decision


def _is_there(path: Path) -> bool:
    """Whether there is a file, or a link that ought to lead to one."""
    return path.exists() or path.is_symlink()


def _read(directory: Path) -> tuple[dict[str, Any], bytes]:
    """Read both files and check that they belong together."""
    try:
        metadata = read_object(path := directory / DESCRIPTION_FILE)
        weights = read_bytes(path := directory / WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    except (OSError, ValueError) as error:
        raise _bad(directory, f"{path.name}: {error}") from error
    if not isinstance(metadata.get("architecture"), dict):
        raise _bad(directory, f"{DESCRIPTION_FILE} describes no architecture")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise _bad(directory, f"format version {metadata.get('format_version')} instead of {FORMAT_VERSION}")
    if metadata.get("weights_sha256") != hashlib.sha256(weights).hexdigest():
        raise _bad(directory, f"{WEIGHTS_FILE} is not the file that {DESCRIPTION_FILE} describes")
    return metadata, weights


def _input_constants() -> dict[str, Any]:
    """Describe what the network's input means: a model is only valid with the constants it was trained on."""
    from bids_wmh_uad.core.network.patches import BACKGROUND, PATCH_SIZE, SQUASH_WIDTH

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


def load_normality(model: str, paradigm: str) -> KernelSum | VoxelwiseOneClassSVM | None:
    """The controls' One-Class SVMs of a model; None for the *patient* paradigm."""
    return None if paradigm == "patient" else load_one_class(model, paradigm)
