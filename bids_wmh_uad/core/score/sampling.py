"""Which of a scan's patches a One-Class SVM learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.errors import TOO_FEW_VOXELS, BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder
    from bids_wmh_uad.core.parameters import DetectionParameters
    from bids_wmh_uad.core.score.scan import Scan


@dataclass(frozen=True, eq=False)
class Sample:
    """Latents of randomly drawn voxels.

    Attributes
    ----------
    members : (k, n, d) float32 array
        What each of the patient's One-Class SVMs is fitted to.
    spread : (m, d) float32 array
        From which the spread of normal surprise is estimated.
    spread_voxels : (m,) int64 tensor or None
        Their voxel-wise models.
    """

    members: NDArray[np.float32]
    spread: NDArray[np.float32]
    spread_voxels: Tensor | None


def draw_sample(
    model: SiameseAutoencoder,
    scan: Scan,
    allowed: NDArray[np.bool_],
    params: DetectionParameters,
    rng: np.random.Generator,
    *,
    members: bool = True,
    spread: bool = True,
) -> Sample:
    """Draw voxels where a scan's patches may be learnt, and encode their patches.

    Only what is asked for is drawn: a given model needs no `members`, the faithful score no `spread`.

    Parameters
    ----------
    model : SiameseAutoencoder
    scan : Scan
    allowed : (X, Y, Z) bool array
        Voxels that may be drawn.
    params : DetectionParameters
        `n_models` samples of `n_samples`, and one of `n_spread`; as many as there are where there are fewer.
    rng : numpy.random.Generator
    members, spread : bool
        Whether each part is drawn.

    Returns
    -------
    Sample

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when none may be drawn.
    """
    candidates = np.flatnonzero(allowed)
    if not candidates.size:
        raise BadDataError(TOO_FEW_VOXELS.format(what="one-class sample", n=0, needed=1))
    size = min(params.n_samples, candidates.size)
    n_models = params.n_models if members else 0
    drawn = [rng.choice(candidates, size, replace=False) for _ in range(n_models)]
    others = min(params.n_spread, candidates.size) if spread else 0
    drawn.append(rng.choice(candidates, others, replace=False))
    rows = np.concatenate(drawn)
    coords = np.stack(np.unravel_index(rows, allowed.shape), axis=1)
    latents = embed_patches(model, extract_patches(scan.network_input(), coords))
    fitted, rest = np.split(latents, [size * n_models])
    voxels = None if scan.voxels is None else torch.from_numpy(scan.voxels.flat[drawn[-1]].astype(np.int64))
    return Sample(fitted.reshape(n_models, size, latents.shape[1]), rest, voxels)
