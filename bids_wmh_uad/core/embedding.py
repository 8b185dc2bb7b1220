"""Latents of patches, and dense latents of a volume in one pass."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_wmh_uad.core.patches import BACKGROUND
from bids_wmh_uad.errors import GRID_MISMATCH, GridMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bids_wmh_uad.core.autoencoder import SiamesePatchAutoEncoder


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Switch to evaluation without gradients, then back to the previous mode; yields the model's device."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)


def embed_patches(
    model: SiamesePatchAutoEncoder, patches: NDArray[np.float32], batch_size: int = 8192
) -> NDArray[np.float32]:
    """Latents of patches, each encoded on its own.

    Parameters
    ----------
    model : SiamesePatchAutoEncoder
        BatchNorm uses its running statistics.
    patches : (n, C, 15, 15) float32 array
        Network input in [0, 1].
    batch_size : int

    Returns
    -------
    (n, 16) float32 array.
    """
    latents = np.empty((len(patches), model.latent_size), dtype=np.float32)
    with _evaluating(model) as device:
        for start in range(0, len(patches), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(patches[start : start + batch_size]))
            latents[start : start + batch_size] = model.encode(batch.to(device)).cpu().numpy()
    return latents


def embed_dense(
    model: SiamesePatchAutoEncoder,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    slices: int = 8,
) -> NDArray[np.float32]:
    """Latents of the 15x15 axial patch around every voxel of a mask.

    Each stride s of the encoder becomes stride 1, and later layers are dilated by
    s: the same sums of the same products for every patch at once (a trous;
    about 2.4 k multiply-adds a voxel instead of 32 k). Equal to `embed_patches`
    of `extract_patches` up to rounding, at the image's edge too.

    Parameters
    ----------
    model : SiamesePatchAutoEncoder
    image : (C, X, Y, Z) float32 array
        Network input in [0, 1]; beyond its edge counts as background.
    mask : (X, Y, Z) bool array
        Voxels wanted.
    slices : int
        Axial slices per pass: bounds the memory, does not change the result.

    Returns
    -------
    (n, 16) float32 array, rows in the order of ``np.nonzero(mask)``.

    Raises
    ------
    GridMismatchError
        When image and mask differ in shape.
    """
    if image.shape[1:] != mask.shape:
        detail = f"shapes {image.shape[1:]} and {mask.shape}"
        raise GridMismatchError(GRID_MISMATCH.format(first="image", second="mask", detail=detail))
    latents = np.empty((int(np.count_nonzero(mask)), model.latent_size), dtype=np.float32)
    if latents.size == 0:
        return latents
    row = np.zeros(mask.shape, dtype=np.int64)
    row[mask] = np.arange(len(latents))
    box = _bounding_box(mask)
    with _evaluating(model) as device:
        for start in range(box[2].start, box[2].stop, slices):
            part = (box[0], box[1], slice(start, min(start + slices, box[2].stop)))
            wanted = mask[part]
            padded = torch.from_numpy(_with_halo(image, part, model.patch_size // 2)).to(device)
            dense = _encode_dense(model.encoder, padded).permute(2, 3, 0, 1).cpu().numpy()
            latents[row[part][wanted]] = dense[wanted]
    return latents


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Smallest box that holds a non-empty mask."""
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    x, y, z = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return x, y, z


def _with_halo(
    image: NDArray[np.float32], part: tuple[slice, slice, slice], halo: int
) -> NDArray[np.float32]:
    """Cut slices with an in-plane halo: (slices, C, X + 2 halo, Y + 2 halo), background beyond the image."""
    inside: list[slice] = []
    padding: list[tuple[int, int]] = []
    for axis in (0, 1):
        low, high = part[axis].start - halo, part[axis].stop + halo
        limit = image.shape[axis + 1]
        inside.append(slice(max(low, 0), min(high, limit)))
        padding.append((max(-low, 0), max(high - limit, 0)))
    cut = image[:, inside[0], inside[1], part[2]].transpose(3, 0, 1, 2)
    padded: NDArray[Any] = np.pad(cut, [(0, 0), (0, 0), *padding], constant_values=BACKGROUND)
    return np.ascontiguousarray(padded, dtype=np.float32)


def _encode_dense(encoder: nn.Sequential, images: Tensor) -> Tensor:
    """Apply the encoder at every position: strides become dilations of what follows."""
    dilation = 1
    for layer in encoder:
        if isinstance(layer, nn.Conv2d):
            images = functional.conv2d(images, layer.weight, layer.bias, dilation=dilation)
            dilation *= layer.stride[0]
        else:
            images = layer(images)
    return images
