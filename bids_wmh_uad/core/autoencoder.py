"""The siamese patch auto-encoder and its loss, following METHOD.md section 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_wmh_uad.core.patches import PATCH_SIZE


@dataclass(frozen=True)
class Layer:
    """One valid convolution: kernel edge, stride and number of feature maps."""

    kernel: int
    stride: int
    features: int


LAYERS = (Layer(5, 1, 3), Layer(3, 1, 4), Layer(3, 3, 12), Layer(3, 1, 16))
"""15 -> 11 -> 9 -> 3 -> 1 voxels; 16-d latent (the group's later code)."""

LATENT_SIZE = LAYERS[-1].features


class SiamesePatchAutoEncoder(nn.Module):
    """Patch auto-encoder whose two branches share all weights.

    Encoder: four valid convolutions, each followed by GELU, then BatchNorm.
    Decoder: the mirrored transposed convolutions, sigmoid at the end.

    Parameters
    ----------
    in_channels : int
        Contrasts (2: FLAIR, T1w).

    Notes
    -----
    Construct through `build_autoencoder` for seeded weights.
    """

    def __init__(self, in_channels: int = 2) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = [in_channels, *(layer.features for layer in LAYERS)]
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for layer, wide in zip(LAYERS, widths[:-1], strict=True):
            convolution = nn.Conv2d(wide, layer.features, layer.kernel, stride=layer.stride)
            encoder += [convolution, nn.GELU(), nn.BatchNorm2d(layer.features)]
            transposed = nn.ConvTranspose2d(layer.features, wide, layer.kernel, stride=layer.stride)
            last = wide == in_channels and not decoder
            decoder = [transposed, *([nn.Sigmoid()] if last else [nn.GELU(), nn.BatchNorm2d(wide)]), *decoder]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)

    @property
    def patch_size(self) -> int:
        """Edge of the patches it takes, voxels."""
        return PATCH_SIZE

    @property
    def latent_size(self) -> int:
        """Length of a latent vector."""
        return LATENT_SIZE

    def encode(self, patches: Tensor) -> Tensor:
        """Encode (n, C, 15, 15) patches in [0, 1] to (n, 16) latents."""
        latents: Tensor = self.encoder(patches)
        return latents.flatten(1)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode (n, 16) latents to (n, C, 15, 15) patches in (0, 1)."""
        patches: Tensor = self.decoder(latents[:, :, None, None])
        return patches

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return (reconstructions, latents) of (n, C, 15, 15) patches."""
        latents = self.encode(patches)
        return self.decode(latents), latents

    def architecture(self) -> dict[str, Any]:
        """Describe what `build_autoencoder` needs to make this network again."""
        return {"name": "siamese-patch-ae-15", "in_channels": self.in_channels}


def build_autoencoder(seed: int, in_channels: int = 2) -> SiamesePatchAutoEncoder:
    """Make a network with seeded weights; torch's global generator is left as it was.

    Parameters
    ----------
    seed : int
    in_channels : int

    Returns
    -------
    SiamesePatchAutoEncoder, in training mode, on the CPU, float32.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SiamesePatchAutoEncoder(in_channels)


def siamese_loss(
    patches: tuple[Tensor, Tensor],
    reconstructions: tuple[Tensor, Tensor],
    latents: tuple[Tensor, Tensor],
    alpha: float = 0.005,
) -> Tensor:
    r"""Siamese loss of a batch of pairs.

    .. math:: L = \frac12 \sum_b \|x_b - \hat x_b\|^2 - \alpha \cos(z_1, z_2)

    averaged over the batch; the squared error is summed over the patch.

    Parameters
    ----------
    patches, reconstructions : pair of (n, C, s, s) tensors
    latents : pair of (n, d) tensors
    alpha : float
        Weight of the cosine similarity; 0 = plain auto-encoder.

    Returns
    -------
    Scalar tensor.

    Notes
    -----
    Following Pinon et al., MIDL 2023; alpha and the sum over the patch are
    inferred from the group's other papers (METHOD.md section 1).
    """
    errors = [
        functional.mse_loss(guess, truth, reduction="none").flatten(1).sum(1)
        for truth, guess in zip(patches, reconstructions, strict=True)
    ]
    similarity = functional.cosine_similarity(latents[0], latents[1], dim=1)
    return (0.5 * (errors[0] + errors[1]) - alpha * similarity).mean()
