"""Anomaly maps in one streamed pass: embed a slab, score it, write it, forget it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bids_wmh_uad.core.network.dense import slab_slices
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.brightness import brightness_maps
from bids_wmh_uad.core.score.latent import AnomalyMap, latent_excess, minus_decision
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.errors import UNCOVERED, SessionWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder
    from bids_wmh_uad.core.svm.paradigms import OneClassModel


def anomaly_map(
    model: SiameseAutoencoder | None,
    scan: Scan,
    params: DetectionParameters,
    rng: np.random.Generator,
    *,
    one_class: OneClassModel | None = None,
    device: str = "cpu",
    slices: int | None = None,
    direction: NDArray[np.float32] | None = None,
) -> AnomalyMap:
    r"""Score every brain voxel: larger = more abnormal.

    Slab by slab, the patch around every voxel is embedded and scored; latents are never
    held for the whole brain. On the CPU ``torch.get_num_threads()`` slabs are in work at
    once. On a GPU whose memory does not suffice slabs are halved, and in the end the CPU
    goes on. The map does not depend on the number of threads.

    ``"faithful"`` is minus the decision function of an untrimmed ensemble, as in Pinon et al.,
    MIDL 2023, arXiv:2304.08058 (inferred: that several fits are averaged).

    ``"directed"`` asks how much of a patch's surprise S (minus the log of the
    One-Class SVM's kernel sum) goes away when FLAIR is cut where it is brighter than
    usual, and weights the brightness B with the answer:

    .. math:: D = \max(0, S(F, T) - S(\min(F, u), T)) / \sigma_S, \qquad
              B = r \sqrt{\max(z, 0) \max(z_T, 0)}, \qquad
              A = B \cdot \left(\text{floor} + \frac{D}{1 + D}\right)

    z is FLAIR against white matter, less its local departure; z_T the same against the scan's
    own tissue of the same T1w (`expected.expected_flair`): cortex that is bright in everybody is
    no lesion. u is the upper bound of usual FLAIR (`ExpectedFlair.upper`). r is `expected.rim_weight`
    times `expected.tissue_weight`. The brightest `trim` of the brain's FLAIR is never shown to the patient's own
    One-Class SVM: lesions cannot be learnt as normal. sigma_S = 1.4826 MAD of S over the voxels
    that may be shown; D and both contrasts are smoothed (`brightness.smoothing_mm`), F itself is not. The factor lies in
    [floor, floor + 1): the latent score ranks, it cannot veto.

    ``"brightness"`` is B and ``"latent"`` is D, each by itself: what the default score owes to which. Of an encoder
    and a One-Class SVM "brightness" asks nothing.

    Parameters
    ----------
    model : SiameseAutoencoder or None
        None will do for "brightness".
    scan : Scan
    params : DetectionParameters
    rng : numpy.random.Generator
    one_class : OneClassModel, optional
        Fitted to controls (*pooled* or *voxel* paradigm); without it the scan's own patches
        are learnt (*patient* paradigm). Voxels without a model (`Scan.voxels`) have D = 0,
        and the median of all others as their faithful score.
    device : str
        torch device, for example ``cuda:0``.
    slices : int, optional
        Axial slices per slab: bounds the memory, does not change the map beyond rounding;
        `dense.slab_slices` without it.
    direction : (d,) float32 array, optional
        Of lesions in latent space (`lesion.decision.LesionDecision.latent`): "directed" and "latent" then also give
        each voxel's `AnomalyMap.evidence`.

    Returns
    -------
    AnomalyMap

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the mask is too small, or no voxel has a model.
    ValueError
        Without a model, if the score uses one.

    Examples
    --------
    Noise with a bright box in it, on your own z-scores and without the rest of the program:

    >>> import numpy as np
    >>> from bids_wmh_uad import DetectionParameters, Scan, anomaly_map, load_model
    >>> flair, t1w = np.random.default_rng(0).normal(size=(2, 24, 24, 12)).astype(np.float32)
    >>> flair[10:13, 10:13, 5:7] += 6
    >>> scan = Scan(flair, t1w, mask=np.ones(flair.shape, dtype=bool), zooms=(1, 1, 3))
    >>> model, _ = load_model("default")
    >>> found = anomaly_map(model, scan, DetectionParameters(n_samples=500), np.random.default_rng(0))
    >>> bool(found.scores[10:13, 10:13, 5:7].max() == found.scores.max())
    True
    """
    if not params.uses_network:
        score = brightness_maps(scan, params).score
        return AnomalyMap(score, "cpu", (), brightness=score)
    if model is None:
        raise ValueError(f"the score {params.score!r} needs a model")
    if params.score == "faithful":
        return minus_decision(model, scan, params, rng, one_class, device, slices or slab_slices(model))
    brightness = brightness_maps(scan, params)
    latent = latent_excess(
        model,
        scan,
        params,
        rng,
        brightness,
        one_class=one_class,
        device=device,
        slices=slices,
        direction=direction,
    )
    if params.score == "latent":
        return replace(latent, brightness=brightness.score)
    factor = np.float32(params.floor) + latent.scores / (1.0 + latent.scores)
    return replace(latent, scores=brightness.score * factor, brightness=brightness.score)


def uncovered_warnings(percent: float, params: DetectionParameters) -> list[SessionWarning]:
    """Warn when more than `uncovered_percent` of the brain has no voxel-wise model."""
    return [UNCOVERED.format(percent=percent)] if percent > params.uncovered_percent else []
