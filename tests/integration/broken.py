"""Scans that are wrong in one way each, made from a good pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[Any, Any]  # FLAIR, T1w


def _like(image: Any, data: np.ndarray, affine: np.ndarray | None = None) -> Any:
    return nib.Nifti1Image(data.astype(np.float32), image.affine if affine is None else affine)


def _data(image: Any) -> np.ndarray:
    return np.asanyarray(image.dataobj).astype(np.float32)


def _inverted(image: Any) -> Any:
    data = _data(image)
    inside = data > 0
    return _like(image, np.where(inside, data[inside].max() + 1 - data, 0))


def _half(image: Any) -> Any:
    """Without what lies right of the middle."""
    image = nib.as_closest_canonical(image)
    data = _data(image)
    data[data.shape[0] // 2 :] = 0
    return _like(image, data)


def _slab(image: Any, part: tuple[float, float]) -> Any:
    """Only some of the axial slices: a small field of view."""
    image = nib.as_closest_canonical(image)
    low, high = (round(limit * image.shape[2]) for limit in part)
    return image.slicer[:, :, low:high]


def _thick(image: Any, factor: int) -> Any:
    """Neighbouring axial slices averaged."""
    image = nib.as_closest_canonical(image)
    data = _data(image)[:, :, : image.shape[2] // factor * factor]
    data = data.reshape(*data.shape[:2], -1, factor).mean(axis=-1)
    affine = image.affine @ np.diag([1, 1, factor, 1])
    return _like(image, data, affine)


def _noisy(image: Any, sd: float) -> Any:
    data = _data(image)
    rng = np.random.default_rng(0)
    noise = sd * data[data > 0].mean()
    real, imaginary = rng.normal(0, noise, (2, *data.shape))
    return _like(image, np.where(data > 0, np.hypot(data + real, imaginary), 0))


def _scaled(image: Any, factor: float) -> Any:
    """Wrong voxel sizes in the header."""
    return _like(image, _data(image), np.diag([factor, factor, factor, 1]) @ image.affine)


def _turned(image: Any) -> Any:
    """Axes mixed up in the header: what was up is to the front."""
    turn = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    return _like(image, _data(image), turn @ image.affine)


def _upside_down(image: Any) -> Any:
    image = nib.as_closest_canonical(image)
    return _like(image, _data(image)[:, :, ::-1])


def _scrambled(image: Any) -> Any:
    """Not this head: blocks of it in random places."""
    data = _data(image)
    size = 8
    rng = np.random.default_rng(0)
    whole = tuple(n // size for n in data.shape)
    inner = data[tuple(slice(n * size) for n in whole)]
    blocks = inner.reshape(whole[0], size, whole[1], size, whole[2], size).transpose(0, 2, 4, 1, 3, 5)
    flat = blocks.reshape(-1, size, size, size)
    full = np.flatnonzero((flat > 0).mean(axis=(1, 2, 3)) > 0.95)
    flat[full] = flat[rng.permutation(full)]
    mixed = flat.reshape(*whole, size, size, size).transpose(0, 3, 1, 4, 2, 5).reshape(inner.shape)
    out = np.zeros_like(data)
    out[tuple(slice(n * size) for n in whole)] = mixed
    return _like(image, np.where(data > 0, out, 0))


def _dropped(image: Any) -> Any:
    """Every third axial slice is empty."""
    image = nib.as_closest_canonical(image)
    data = _data(image)
    data[:, :, ::3] = 0
    return _like(image, data)


BROKEN: dict[str, Callable[[Pair], Pair]] = {
    "intact": lambda pair: pair,
    "constant": lambda pair: (_like(pair[0], np.full(pair[0].shape, 7)), pair[1]),
    "duplicate": lambda pair: (pair[1], pair[1]),
    "halfbrain": lambda pair: (_half(pair[0]), _half(pair[1])),
    "halft1w": lambda pair: (pair[0], _half(pair[1])),
    "invertedflair": lambda pair: (_inverted(pair[0]), pair[1]),
    "invertedt1w": lambda pair: (pair[0], _inverted(pair[1])),
    "noisy": lambda pair: (_noisy(pair[0], 0.6), pair[1]),
    "scrambled": lambda pair: (pair[0], _scrambled(pair[1])),
    "slab": lambda pair: (_slab(pair[0], (0.4, 0.75)), pair[1]),
    "swapped": lambda pair: (pair[1], pair[0]),
    "thick": lambda pair: (_thick(pair[0], 3), pair[1]),
    "turned": lambda pair: (_turned(pair[0]), _turned(pair[1])),
    "upsidedown": lambda pair: (_upside_down(pair[0]), pair[1]),
    "voxelsize": lambda pair: (_scaled(pair[0], 1.5), _scaled(pair[1], 1.5)),
    "dropped": lambda pair: (_dropped(pair[0]), pair[1]),
}
"""What is done to a good pair, by the label of the subject that gets the result."""
