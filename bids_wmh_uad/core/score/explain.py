"""What the network makes of a scan: a few patches with their reconstructions, and latents in a plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder
    from bids_wmh_uad.core.score.scan import Scan

POINTS, EXAMPLES = 150, 3
"""Numbers of voxels of each kind in the plane, and of patches of each kind that are shown."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A small random sample of a scan's patches.

    Attributes
    ----------
    kinds : tuple of str
        Names of the kinds of tissue, in the order given; those without a voxel are left out.
    kind : (n,) int array
        Which kind each point is of.
    plane : (n, 2) float32 array
        Latents in the plane of the two main directions of what is not the last kind (lesions).
    share : (2,) float array
        Fraction of that variance along either direction.
    patches, reconstructions : (m, 2, 15, 15) float32 array
        Network input in [0, 1], FLAIR and T1w, and what the decoder makes of its latent.
    patch_kind : (m,) int array
    """

    kinds: tuple[str, ...]
    kind: NDArray[np.int64]
    plane: NDArray[np.float32]
    share: NDArray[np.float64]
    patches: NDArray[np.float32]
    reconstructions: NDArray[np.float32]
    patch_kind: NDArray[np.int64]


def explain(
    model: SiameseAutoencoder,
    scan: Scan,
    kinds: Mapping[str, NDArray[np.bool_]],
    rng: np.random.Generator,
) -> Explanation:
    """Sample a scan's patches and see what the auto-encoder makes of them.

    Parameters
    ----------
    model : SiameseAutoencoder
    scan : Scan
        On its working grid.
    kinds : mapping of str to (X, Y, Z) bool array
        Where each kind of tissue is; the last is the lesions.
    rng : numpy.random.Generator

    Returns
    -------
    Explanation

    Raises
    ------
    ValueError
        If no kind has a voxel.
    """
    candidates = {name: np.flatnonzero(mask & scan.mask) for name, mask in kinds.items()}
    names = tuple(name for name, voxels in candidates.items() if voxels.size)
    if not names:
        raise ValueError("no voxel of any kind")
    drawn = [
        rng.choice(candidates[name], min(POINTS, candidates[name].size), replace=False) for name in names
    ]
    kind = np.repeat(np.arange(len(names)), [len(rows) for rows in drawn])
    coords = np.stack(np.unravel_index(np.concatenate(drawn), scan.mask.shape), axis=1)
    patches = extract_patches(scan.network_input(), coords)
    latents = embed_patches(model, patches)
    lesions = list(kinds)[-1]
    reference = (
        latents
        if names == (lesions,)
        else latents[kind != (names.index(lesions) if lesions in names else -1)]
    )
    plane, share = _plane(latents, reference)
    shown = np.concatenate([np.flatnonzero(kind == number)[:EXAMPLES] for number in range(len(names))])
    with torch.inference_mode():
        decoded = model.decode(torch.from_numpy(latents[shown])).numpy()
    return Explanation(names, kind, plane, share, patches[shown], decoded, kind[shown])


def _plane(
    latents: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Principal components of the reference latents, each dimension in units of its spread."""
    centre, spread = reference.mean(axis=0), np.maximum(reference.std(axis=0), 1e-6)
    _, singular, directions = np.linalg.svd((reference - centre) / spread, full_matrices=False)
    # the sign of a direction is arbitrary: its largest part points up
    directions *= np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])[:, None]
    variance = singular.astype(np.float64) ** 2
    plane = ((latents - centre) / spread) @ directions[:2].T
    return np.asarray(plane, dtype=np.float32), variance[:2] / max(float(variance.sum()), 1e-12)
