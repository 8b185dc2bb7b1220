"""Latents of patches, and dense latents of a volume in one pass."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bids_wmh_uad.core.network.dense import DenseEncoder, slab_slices, slices_first
from bids_wmh_uad.core.parallel import GPU_FACTOR, parallel_map
from bids_wmh_uad.errors import GRID_MISMATCH, GridMismatchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder

PINNED = 2**23
"""Numbers of a pinned buffer between a GPU and the host: 32 MB."""


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
    model: SiameseAutoencoder, patches: NDArray[np.float32], batch_size: int = 8192
) -> NDArray[np.float32]:
    """Latents of patches, each encoded on its own.

    Parameters
    ----------
    model : SiameseAutoencoder
        BatchNorm uses its running statistics.
    patches : (n, C, 15, 15) float32 array
        Network input in [0, 1].
    batch_size : int
        Patches that pass the network together; changes the memory, not the latents.

    Returns
    -------
    (n, d) float32 array.

    See Also
    --------
    embed_dense : The same for all voxels of a mask, without cutting patches.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    >>> from bids_wmh_uad.core.network.embedding import embed_patches
    >>> patches = np.zeros((3, 2, 15, 15), dtype=np.float32)
    >>> embed_patches(build_autoencoder(seed=0), patches).shape
    (3, 16)
    """
    latents = np.empty((len(patches), model.latent_size), dtype=np.float32)
    with _evaluating(model) as device:
        for start in range(0, len(patches), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(patches[start : start + batch_size]))
            latents[start : start + batch_size] = model.encode(batch.to(device)).cpu().numpy()
    return latents


def embed_dense(
    model: SiameseAutoencoder,
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    slices: int | None = None,
) -> NDArray[np.float32]:
    """Latents of the 15x15 axial patch around every voxel of a mask.

    Equal to `embed_patches` of `extract_patches` up to rounding, at the image's
    edge too (see `DenseEncoder`); bit for bit the same for any number of threads,
    of which ``torch.get_num_threads()`` work on different slices.

    Parameters
    ----------
    model : SiameseAutoencoder
        BatchNorm uses its running statistics.
    image : (C, X, Y, Z) float32 array
        Network input in [0, 1]; beyond its edge counts as background.
    mask : (X, Y, Z) bool array
        Voxels to embed.
    slices : int, optional
        Axial slices per pass: bounds the memory, does not change the result beyond rounding;
        `slab_slices` without it.

    Returns
    -------
    (n, d) float32 array, rows in the order of ``np.nonzero(mask)``.

    Raises
    ------
    GridMismatchError
        `errors.GRID_MISMATCH`, when image and mask differ in shape.

    See Also
    --------
    embed_patches : Patches one by one.
    DenseEncoder : One slab at a time, for volumes whose latents do not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    >>> from bids_wmh_uad.core.network.embedding import embed_dense, embed_patches
    >>> from bids_wmh_uad.core.network.patches import extract_patches
    >>> image = np.random.default_rng(0).random((2, 20, 20, 3), dtype=np.float32)
    >>> mask = np.zeros((20, 20, 3), dtype=bool)
    >>> mask[5:9, 5:9, 1] = True
    >>> model = build_autoencoder(seed=0).eval()
    >>> dense = embed_dense(model, image, mask)
    >>> bool(np.allclose(dense, embed_patches(model, extract_patches(image, np.argwhere(mask))), atol=1e-5))
    True
    """
    if image.shape[1:] != mask.shape:
        detail = f"shapes {image.shape[1:]} and {mask.shape}"
        raise GridMismatchError(GRID_MISMATCH.format(first="image", second="mask", detail=detail))
    encoder, slices = DenseEncoder(model), slices or slab_slices(model)
    if encoder.device.type != "cpu":
        return _embed_on_gpu(encoder, image, mask, slices * GPU_FACTOR)
    count = np.cumsum(mask.ravel(), dtype=np.int32).reshape(mask.shape)
    latents = np.empty((int(mask.sum()), model.latent_size), dtype=np.float32)
    whole_rows = latents.view(f"V{latents.strides[0]}")[:, 0]  # a row is one item: written twice as fast

    def embed(start: int) -> None:
        slab = slice(start, start + slices)
        values = encoder(image, mask, slab).numpy()
        rows = slices_first(count, slab)[slices_first(mask, slab)] - 1
        np.put(whole_rows, rows, values.view(whole_rows.dtype)[:, 0])

    parallel_map(embed, range(0, mask.shape[2], slices))
    return latents


def _embed_on_gpu(
    encoder: DenseEncoder, image: NDArray[np.float32], mask: NDArray[np.bool_], slices: int
) -> NDArray[np.float32]:
    """`embed_dense` with the rows brought into order on the GPU."""
    wanted = torch.from_numpy(mask).to(encoder.device)
    row = wanted.flatten().cumsum(0).reshape(mask.shape) - 1
    latents = torch.empty((int(wanted.sum()), encoder.latent_size), device=encoder.device)
    for start in range(0, mask.shape[2], slices):
        slab = slice(start, start + slices)
        inside = wanted[..., slab].permute(2, 0, 1)
        latents[row[..., slab].permute(2, 0, 1)[inside]] = encoder(image, mask, slab)
    return _to_host(latents)


def _to_host(values: Tensor) -> NDArray[np.float32]:
    """Copy rows from a GPU by way of a pinned buffer: a GPU writes to memory that can be paged by way of one, too, and more slowly."""
    result = np.empty(values.shape, dtype=np.float32)
    rows = max(1, PINNED // values.shape[1])
    buffer = torch.empty((min(rows, len(values)), values.shape[1]), pin_memory=True)
    for start in range(0, len(values), rows):
        part = values[start : start + rows]
        result[start : start + rows] = buffer[: len(part)].copy_(part).numpy()
    return result
