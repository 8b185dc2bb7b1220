"""The encoder around every voxel at once: strides become dilations, and the same products are summed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_wmh_uad.core.network.patches import BACKGROUND

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder

LANES = 16
"""Number of feature maps a convolution should make at once: the float32 numbers of a vector register."""

SLAB = 4
"""Number of axial slices per pass with 16-d latents: about 20 MB a thread for a head at 1 mm."""

ROWS = 8192
"""Latents finished at a time: half a megabyte, which stays in a core's cache."""


def slab_slices(model: SiameseAutoencoder) -> int:
    """Axial slices per pass that bound a model's memory: latents 25 times as wide take thinner slabs."""
    return max(1, SLAB * 16 // model.latent_size)


@dataclass(frozen=True, eq=False)
class _Convolution:
    """One dense layer: `block` neighbouring y positions of all feature maps are the maps of one convolution.

    A tensor that is channels-last in memory has the maps of neighbouring y positions
    side by side, so (S, X, Y / block, block x features) maps are (S, X, Y, features)
    maps without a copy: layers of 3 or 4 maps fill the vector registers too.
    """

    weight: Tensor
    bias: Tensor
    block: int
    dilation: int
    features: int

    def __call__(self, maps: Tensor) -> Tensor:
        """Convolve (S, X, Y, C) to (S, X', Y', features) at every position."""
        images = maps.permute(0, 3, 1, 2)
        images = functional.conv2d(
            images, self.weight, self.bias, stride=(1, self.block), dilation=self.dilation
        )
        slices, _, rows, _ = images.shape
        return images.permute(0, 2, 3, 1).reshape(slices, rows, -1, self.features)

    def width_for(self, width: int) -> int:
        """Y positions of input needed for `width` of output."""
        blocks = -(-width // self.block)
        return self.block * (blocks - 1) + self.dilation * (self.weight.shape[3] - 1) + 1


class DenseEncoder:
    """The encoder of an auto-encoder, applied around every voxel at once.

    Each stride s of the encoder becomes stride 1, and later layers are dilated by
    s: the same sums of the same products for every patch at once (a trous; 2.4 k
    multiply-adds a voxel instead of 32 k). Each BatchNorm is folded into the
    convolution before it, or the one that follows where a GELU lies between, exactly, for
    none of them pads; then the last one is left. Latents of several positions are the
    neighbourhoods of one set of maps.

    Parameters
    ----------
    model : SiameseAutoencoder
        Read once, its running statistics included; not kept.
    device : torch.device or str, optional
        Device that computes; the model's without it.

    Attributes
    ----------
    device : torch.device
    halo : int
        Voxels of a patch on either side of its centre.
    latent_size : int
        Length d of a latent vector.

    See Also
    --------
    embedding.embed_dense : All latents of a mask at once.

    Notes
    -----
    Thread-safe: calls share nothing but the weights, which need no gradients.

    Examples
    --------
    >>> import numpy as np
    >>> from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    >>> from bids_wmh_uad.core.network.dense import DenseEncoder
    >>> image, mask = np.zeros((2, 20, 20, 6), dtype=np.float32), np.ones((20, 20, 6), dtype=bool)
    >>> encode = DenseEncoder(build_autoencoder(seed=0))
    >>> tuple(encode(image, mask, slice(0, 2)).shape)  # two slices of 400 voxels
    (800, 16)
    """

    def __init__(self, model: SiameseAutoencoder, device: torch.device | str | None = None) -> None:
        self.device = torch.device(device or next(model.parameters()).device)
        self.halo = model.patch_size // 2
        self.latent_size = model.latent_size
        self._edge = model.plan.latent_edge
        fold = _fold_before if model.plan.norm_first else _fold_after
        self._layers, self._norm = fold(model.encoder, self.device)

    def __call__(self, image: NDArray[np.float32], mask: NDArray[np.bool_], slab: slice) -> Tensor:
        """Latents of the patch around every voxel of a mask in a slab of axial slices.

        Parameters
        ----------
        image : (C, X, Y, Z) float32 array
            Network input in [0, 1]; beyond its edge counts as background.
        mask : (X, Y, Z) bool array
            Voxels to embed.
        slab : slice
            Of Z, step 1; a few slices bound the memory (about 5 MB a slice of 150 x 185).

        Returns
        -------
        (n, d) float32 tensor on `device`, slice by slice: rows in the order of
        ``np.nonzero(slices_first(mask, slab))``.
        """
        inside = slices_first(mask, slab)
        columns: NDArray[np.bool_] = np.logical_or.reduce(inside)
        if not columns.any():
            return torch.empty((0, self.latent_size), device=self.device)
        box = _extent(columns, 0), _extent(columns, 1)
        maps = self._padded(image[..., slab], box)
        for number, layer in enumerate(self._layers):
            if number:
                torch.ops.aten.gelu_(maps)
            maps = layer(maps)
        rows = torch.from_numpy(_flat_index(maps.shape, inside[:, *box])).to(self.device)
        if self._norm is None:
            torch.ops.aten.gelu_(maps)
        latents = torch.empty(len(rows), self.latent_size, device=self.device)
        at_once = ROWS if self.device.type == "cpu" else len(rows)
        for some, part in zip(torch.split(rows, at_once), torch.split(latents, at_once), strict=True):
            self._neighbourhoods(maps, some, part)
            if self._norm is not None:  # the last GELU and BatchNorm on the rows of the mask only
                scale, shift = self._norm
                torch.addcmul(shift, torch.ops.aten.gelu_(part), scale, out=part)
        return latents

    def _neighbourhoods(self, maps: Tensor, rows: Tensor, out: Tensor) -> None:
        """Latents of rows of flattened maps: the features there, or those of the edge x edge positions from there on."""
        features = maps.reshape(-1, maps.shape[-1])
        if self._edge == 1:
            torch.index_select(features, 0, rows, out=out)
            return
        steps = torch.arange(self._edge, device=self.device)
        window = (steps[:, None] * maps.shape[2] + steps).flatten()
        cut = features.index_select(0, (rows[:, None] + window).flatten())
        out.view(len(rows), -1, len(window)).copy_(cut.reshape(len(rows), len(window), -1).transpose(1, 2))

    def _padded(self, image: NDArray[np.float32], box: tuple[slice, slice]) -> Tensor:
        """Cut (C, X, Y, S) to the box and its halo: (S, X, Y, C), background beyond the image and as filling."""
        height = box[0].stop - box[0].start + 2 * self.halo
        width = box[1].stop - box[1].start + self._edge - 1
        for layer in reversed(self._layers):
            width = layer.width_for(width)
        source, target = [], []
        for span, size, limit in zip(box, (height, width), image.shape[1:3], strict=True):
            origin = span.start - self.halo
            overlap = slice(max(origin, 0), min(origin + size, limit))
            source.append(overlap)
            target.append(slice(overlap.start - origin, overlap.stop - origin))
        shape = image.shape[3], height, width, image.shape[0]
        if self.device.type != "cpu":
            there = torch.from_numpy(image[:, source[0], source[1]]).to(self.device)
            maps = torch.full(shape, BACKGROUND, device=self.device)
            maps[:, target[0], target[1]] = there.permute(3, 1, 2, 0)
            return maps
        padded = np.full(shape, BACKGROUND, dtype=np.float32)
        for channel, values in enumerate(image):  # one by one: long inner loops
            padded[:, target[0], target[1], channel] = values[source[0], source[1]].transpose(2, 0, 1)
        return torch.from_numpy(padded)


_Folded = tuple[list[_Convolution], tuple[Tensor, Tensor] | None]
"""Dense layers, and the last BatchNorm's scale and shift where they are left."""


def _fold_after(encoder: nn.Sequential, device: torch.device) -> _Folded:
    """Dense layers of (convolution, GELU, BatchNorm) triples, and the last BatchNorm's scale and shift."""
    scale, shift = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    dilation = 1
    layers = []
    for number in range(0, len(encoder), 3):
        weight, bias, stride = _convolution(encoder[number])
        bias = bias + (weight * shift[:, None, None]).sum((1, 2, 3))
        layers.append(_dense_layer(weight * scale[:, None, None], bias, dilation, device))
        dilation *= stride
        scale, shift = _scale_and_shift(encoder[number + 2])
    return layers, (scale.to(device, torch.float32), shift.to(device, torch.float32))


def _fold_before(encoder: nn.Sequential, device: torch.device) -> _Folded:
    """Dense layers of (convolution, BatchNorm, GELU) triples: no BatchNorm is left."""
    dilation = 1
    layers = []
    for number in range(0, len(encoder), 3):
        weight, bias, stride = _convolution(encoder[number])
        scale, shift = _scale_and_shift(encoder[number + 1])
        layers.append(
            _dense_layer(weight * scale[:, None, None, None], bias * scale + shift, dilation, device)
        )
        dilation *= stride
    return layers, None


def _convolution(layer: nn.Module) -> tuple[Tensor, Tensor, int]:
    """Weight and bias in float64, and the stride."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu(), layer.stride[0]


def _scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm does in evaluation mode, in float64."""
    assert isinstance(norm, nn.BatchNorm2d)
    state = {name: value.detach().double().cpu() for name, value in norm.state_dict().items()}
    scale = state["weight"] / (state["running_var"] + norm.eps).sqrt()
    return scale, state["bias"] - state["running_mean"] * scale


def _dense_layer(weight: Tensor, bias: Tensor, dilation: int, device: torch.device) -> _Convolution:
    """One convolution at every position."""
    block = max(1, LANES // len(weight))
    weight = _side_by_side(weight, block, dilation)
    weight = weight.to(device, torch.float32, memory_format=torch.channels_last)
    bias = bias.repeat(block).to(device, torch.float32)
    return _Convolution(weight, bias, block, dilation, bias.numel() // block)


def _side_by_side(weight: Tensor, block: int, dilation: int) -> Tensor:
    """Kernel (out, in, k, k) for `block` neighbouring y outputs: (block x out, in, k, k + block - 1)."""
    assert block == 1 or dilation == 1
    out, into, edge, wide = weight.shape
    kernels = weight.new_zeros(block, out, into, edge, wide + block - 1)
    for offset in range(block):
        kernels[offset, ..., offset : offset + wide] = weight
    return kernels.flatten(0, 1)


def _extent(columns: NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last position on an axis where an (X, Y) array is true anywhere."""
    positions = np.flatnonzero(np.logical_or.reduce(columns, axis=1 - axis))
    return slice(int(positions[0]), int(positions[-1]) + 1)


def _flat_index(shape: torch.Size, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices of a mask's voxels (S, X, Y) among the flattened positions of larger maps (S, X', Y', ...)."""
    padded = np.zeros(shape[:3], dtype=bool)
    padded[:, : mask.shape[1], : mask.shape[2]] = mask
    return np.flatnonzero(padded)


def slices_first(volume: NDArray[Any], slab: slice) -> NDArray[Any]:
    """Slices of an (X, Y, Z) array as a contiguous (S, X, Y) array: the order of `DenseEncoder`'s rows."""
    return np.ascontiguousarray(volume[..., slab].transpose(2, 0, 1))
