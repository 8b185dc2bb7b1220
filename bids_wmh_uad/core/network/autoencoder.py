"""The siamese patch auto-encoder and its loss, following Pinon, Trombetta and Lartizien (MIDL 2023).

Of the paper (arXiv:2304.08058) the abstract and the introduction were read; the layers are those of the
same group's later code, and what else is inferred says so where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bids_wmh_uad.core.network.patches import PATCH_SIZE


@dataclass(frozen=True)
class Layer:
    """One valid convolution: kernel edge, stride and number of feature maps."""

    kernel: int
    stride: int
    features: int


@dataclass(frozen=True)
class EncoderPlan:
    """One variant of the network.

    Parameters
    ----------
    architecture : str
        Its name in model descriptions.
    layers : tuple of Layer
    norm_first : bool
        BatchNorm before each GELU, not after it.
    """

    architecture: str
    layers: tuple[Layer, ...]
    norm_first: bool

    @property
    def latent_edge(self) -> int:
        """Edge of the latent maps of one patch, voxels."""
        edge = PATCH_SIZE
        for layer in self.layers:
            edge = (edge - layer.kernel) // layer.stride + 1
        return edge


LARGEST_WEIGHT = 1e9
"""Largest weight: those of a trained network are below 100."""
MAX_CHANNELS = 8
"""Largest number of contrasts that a description may ask for."""
ENCODERS = {
    "compact": EncoderPlan(
        "siamese-patch-ae-15", (Layer(5, 1, 3), Layer(3, 1, 4), Layer(3, 3, 12), Layer(3, 1, 16)), False
    ),
    "wide": EncoderPlan(
        "siamese-patch-ae-15-wide", (Layer(5, 1, 3), Layer(3, 1, 4), Layer(3, 1, 12), Layer(3, 1, 16)), True
    ),
}
"""Variants of the network by name, as in the later code of Pinon et al.'s group: 15 -> 11 -> 9 -> 3 -> 1
voxels, 16-d latents; and 15 -> 11 -> 9 -> 7 -> 5, 16 x 5 x 5 = 400-d."""


class SiameseAutoencoder(nn.Module):
    """Patch auto-encoder whose two branches share all weights.

    Encoder: four valid convolutions, each followed by GELU, then BatchNorm (``compact``) or
    by BatchNorm, then GELU (``wide``). Decoder: the mirrored transposed convolutions, sigmoid
    at the end.

    Parameters
    ----------
    in_channels : int
        Contrasts (2: FLAIR, T1w).
    encoder : {"compact", "wide"}
        See `ENCODERS`.

    Attributes
    ----------
    in_channels : int
    plan : EncoderPlan
        Layers of the encoder.
    encoder, decoder : torch.nn.Sequential
    patch_size : int
        Edge of a patch, voxels.
    latent_size : int
        Length d of a latent vector.

    See Also
    --------
    build_autoencoder : Makes one with seeded weights.
    siamese_loss : What it is trained with.
    core.network.embedding.embed_dense : Latents of all voxels of a volume.

    Notes
    -----
    The siamese branches are one network: a pair's patches pass it together. The idea is that of Pinon
    et al. (2023), the layers those of the group's later code.

    References
    ----------
    * N. Pinon, R. Trombetta and C. Lartizien, "One-Class SVM on siamese neural network latent space for
      Unsupervised Anomaly Detection on brain MRI White Matter Hyperintensities", MIDL 2023,
      arXiv:2304.08058.

    Examples
    --------
    >>> import torch
    >>> from bids_wmh_uad import SiameseAutoencoder
    >>> model = SiameseAutoencoder(encoder="compact").eval()
    >>> reconstructions, latents = model(torch.rand(4, 2, 15, 15))
    >>> tuple(reconstructions.shape), tuple(latents.shape)
    ((4, 2, 15, 15), (4, 16))
    """

    def __init__(self, in_channels: int = 2, encoder: str = "compact") -> None:
        super().__init__()
        self.in_channels = in_channels
        self.plan = ENCODERS[encoder]
        layers = self.plan.layers
        widths = [in_channels, *(layer.features for layer in layers)]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for layer, wide in zip(layers, widths[:-1], strict=True):
            down += [nn.Conv2d(wide, layer.features, layer.kernel, stride=layer.stride)]
            down += self._activation(layer.features)
            transposed = nn.ConvTranspose2d(layer.features, wide, layer.kernel, stride=layer.stride)
            up = [transposed, *(self._activation(wide) if up else [nn.Sigmoid()]), *up]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up)

    def _activation(self, features: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.GELU(), nn.BatchNorm2d(features)]
        return layers[::-1] if self.plan.norm_first else layers

    @property
    def patch_size(self) -> int:
        """Edge of the patches it takes, voxels."""
        return PATCH_SIZE

    @property
    def latent_size(self) -> int:
        """Length of a latent vector, d."""
        return self.plan.layers[-1].features * self.plan.latent_edge**2

    def encode(self, patches: Tensor) -> Tensor:
        """Encode (n, C, 15, 15) patches in [0, 1] to (n, d) latents."""
        latents: Tensor = self.encoder(patches)
        return latents.flatten(1)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode (n, d) latents to (n, C, 15, 15) patches in (0, 1)."""
        edge = self.plan.latent_edge
        patches: Tensor = self.decoder(latents.reshape(len(latents), -1, edge, edge))
        return patches

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return (reconstructions, latents) of (n, C, 15, 15) patches."""
        latents = self.encode(patches)
        return self.decode(latents), latents

    def architecture(self) -> dict[str, Any]:
        """Describe what `autoencoder_for` needs to make this network again."""
        return {"name": self.plan.architecture, "in_channels": self.in_channels}


def build_autoencoder(seed: int, in_channels: int = 2, encoder: str = "compact") -> SiameseAutoencoder:
    """Make a network with seeded weights; torch's global generator is left as it was.

    Parameters
    ----------
    seed : int
        Of the initial weights.
    in_channels : int
        Contrasts.
    encoder : {"compact", "wide"}
        See `ENCODERS`.

    Returns
    -------
    SiameseAutoencoder, in training mode, on the CPU, float32.

    See Also
    --------
    autoencoder_for : Makes the network that a model's description names.

    Examples
    --------
    >>> from bids_wmh_uad.core.network.autoencoder import build_autoencoder
    >>> build_autoencoder(seed=0).latent_size, build_autoencoder(seed=0, encoder="wide").latent_size
    (16, 400)
    >>> sum(weights.numel() for weights in build_autoencoder(seed=0).parameters())
    5000
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SiameseAutoencoder(in_channels, encoder)


def autoencoder_for(architecture: dict[str, Any]) -> SiameseAutoencoder:
    """Make the network that `SiameseAutoencoder.architecture` describes, with weights of no meaning.

    Raises
    ------
    ValueError
        If no such network is known, or the description says more than that.
    """
    names = {plan.architecture: name for name, plan in ENCODERS.items()}
    try:
        if not 1 <= int(architecture["in_channels"]) <= MAX_CHANNELS:  # before memory is asked for
            raise ValueError(f"unknown architecture {architecture}")
        model = build_autoencoder(0, int(architecture["in_channels"]), names[architecture["name"]])
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"unknown architecture {architecture}") from error
    if model.architecture() != architecture:
        raise ValueError(f"unknown architecture {architecture}")
    return model


def give_weights(model: SiameseAutoencoder, weights: dict[str, Tensor]) -> None:
    """Give a network weights that others made, and put it into evaluation mode.

    Raises
    ------
    RuntimeError
        For missing and unknown names.
    ValueError
        For other types and shapes, which torch would cast, for numbers that are not finite or beyond
        `LARGEST_WEIGHT`, and for weights that make such numbers of a grey patch, as a variance below 0 does.
    """
    expected = model.state_dict()
    for name, weight in sorted(weights.items()):  # their order in memory differs from run to run
        like = expected.get(name, weight)  # torch says which names are unknown
        if (weight.dtype, weight.shape) != (like.dtype, like.shape):
            raise ValueError(
                f"{name} is {weight.dtype} {tuple(weight.shape)}, not {like.dtype} {tuple(like.shape)}"
            )
        if not weight.abs().max() <= LARGEST_WEIGHT:  # NaN too
            raise ValueError(f"{name} holds NaN, infinite or absurdly large numbers")
    model.load_state_dict(weights)
    model.eval()
    with torch.inference_mode():
        patch = torch.full((1, model.in_channels, PATCH_SIZE, PATCH_SIZE), 0.5)
        if not all(bool(torch.isfinite(result).all()) for result in model(patch)):
            raise ValueError("they make NaN or infinite numbers of a grey patch")


def focus_window(sigma: float, size: int = PATCH_SIZE) -> Tensor:
    """Weights of a patch's voxels in the reconstruction error: a Gaussian around its centre.

    The score of a voxel is that of the patch around it. With equal weights most of the latent space describes
    edges at the patch's border, which are as manifold in healthy people as in patients.

    Parameters
    ----------
    sigma : float
        Standard deviation, voxels; 0 = equal weights.
    size : int
        Patch edge, voxels.

    Returns
    -------
    (size, size) float32 tensor, of mean 1: errors of all windows have one scale.
    """
    if sigma == 0:
        return torch.ones(size, size)
    squared = ((torch.arange(size, dtype=torch.float64) - size // 2) / sigma).square()
    weights = torch.exp(-0.5 * (squared[:, None] + squared))
    return (weights / weights.mean()).float()


def siamese_loss(
    patches: tuple[Tensor, Tensor],
    reconstructions: tuple[Tensor, Tensor],
    latents: tuple[Tensor, Tensor],
    alpha: float = 0.005,
    window: Tensor | float = 1.0,
) -> Tensor:
    r"""Siamese loss of a batch of pairs.

    .. math:: L = \frac12 \sum_b \sum_i w_i (x_{bi} - \hat x_{bi})^2 - \alpha \cos(z_1, z_2)

    averaged over the batch; the squared error is summed over the patch's voxels i.

    Parameters
    ----------
    patches, reconstructions : pair of (n, C, s, s) tensors
    latents : pair of (n, d) tensors
    alpha : float
        Weight of the cosine similarity; 0 = plain auto-encoder.
    window : (s, s) tensor or float
        Weight w of each voxel's squared error (`focus_window`).

    Returns
    -------
    Scalar tensor.

    Notes
    -----
    Following Pinon et al. (2023). That the squared error is summed over the patch, and alpha for it, are
    inferred from the same group's other papers. The window is this program's.

    References
    ----------
    * N. Pinon, R. Trombetta and C. Lartizien, "One-Class SVM on siamese neural network latent space for
      Unsupervised Anomaly Detection on brain MRI White Matter Hyperintensities", MIDL 2023,
      arXiv:2304.08058.
    """
    squares = (
        functional.mse_loss(reconstruction, patch, reduction="none")
        for patch, reconstruction in zip(patches, reconstructions, strict=True)
    )
    errors = [(each * window).flatten(1).sum(1) for each in squares]
    similarity = functional.cosine_similarity(latents[0], latents[1], dim=1)
    return (0.5 * (errors[0] + errors[1]) - alpha * similarity).mean()
