"""Anomaly maps: embed, fit the patient's One-Class SVM, score every voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_wmh_uad.core.embedding import embed_dense
from bids_wmh_uad.core.intensity import MAD_TO_SD, smooth_flair_z
from bids_wmh_uad.core.ocsvm import fit_patient
from bids_wmh_uad.core.patches import network_input
from bids_wmh_uad.errors import (
    BAD_VALUE,
    GRID_MISMATCH,
    TOO_FEW_VOXELS,
    BadDataError,
    GridMismatchError,
    UsageError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bids_wmh_uad.core.autoencoder import SiamesePatchAutoEncoder

SCORES = ("directed", "faithful")
SPREAD_SAMPLES = 20_000
"""Voxels from which the spread of normal surprise is estimated."""


@dataclass(frozen=True)
class ScoreParams:
    """How a patient is scored.

    Parameters
    ----------
    score : {"directed", "faithful"}
        See `anomaly_map`.
    nu : float
        One-Class SVM: bound on the training outliers, in (0, 1].
    gamma : float or "scale"
        RBF width in standardised latents.
    n_samples : int
        Latents per One-Class SVM.
    n_models : int
        One-Class SVMs averaged.
    trim : float
        Fraction of the brain's voxels, the brightest on FLAIR, left out of the
        training sample (directed score only).
    ceiling : float
        Counterfactual's FLAIR ceiling: robust standard deviations above grey
        matter's median (directed score only).
    floor : float
        Weight of FLAIR z where nothing is unusual; the full weight is ``floor + 1``
        (directed score only).
    sigma_vox : float
        Gaussian smoothing of FLAIR z and of the latent score, working voxels
        (directed score only).

    Raises
    ------
    UsageError
        `errors.BAD_VALUE`, naming the field.
    """

    score: str = "directed"
    nu: float = 0.03
    gamma: float | str = "scale"
    n_samples: int = 2000
    n_models: int = 3
    trim: float = 0.10
    ceiling: float = 2.0
    floor: float = 0.5
    sigma_vox: float = 0.7

    def __post_init__(self) -> None:
        self._require(self.score in SCORES, "score", self.score, f"choose from {SCORES}")
        self._require(0.0 < self.nu <= 1.0, "nu", self.nu, "expected 0 < nu <= 1")
        self._require(0.0 <= self.trim < 0.9, "trim", self.trim, "expected 0 <= trim < 0.9")
        self._require(self.floor >= 0.0, "floor", self.floor, "expected floor >= 0")
        self._require(self.n_samples >= 1, "n_samples", self.n_samples, "expected at least 1")
        self._require(self.n_models >= 1, "n_models", self.n_models, "expected at least 1")

    @staticmethod
    def _require(condition: bool, field: str, value: object, expected: str) -> None:
        if not condition:
            raise UsageError(BAD_VALUE.format(option=field, value=value, expected=expected))


def anomaly_map(
    model: SiamesePatchAutoEncoder,
    flair_z: NDArray[Any],
    t1w_z: NDArray[Any],
    mask: NDArray[np.bool_],
    params: ScoreParams,
    rng: np.random.Generator,
    grey_matter: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    r"""Score every brain voxel: larger = more abnormal.

    The latents of all brain voxels are computed densely; One-Class SVMs are
    fitted to a random sample of them ("per patient" paradigm) and applied to all.

    ``"faithful"`` is minus the decision function of an untrimmed ensemble, as in
    Pinon et al., MIDL 2023 (inferred, METHOD.md section 1).

    ``"directed"`` asks how much of a patch's surprise S (minus the log of the
    One-Class SVM's kernel sum) goes away when FLAIR is cut at a ceiling c, and
    weights FLAIR z with the answer:

    .. math:: D = \max(0, S(F, T) - S(\min(F, c), T)) / \sigma_S, \qquad
              A = \max(z, 0) \cdot \left(\text{floor} + \frac{D}{1 + D}\right)

    c is `flair_ceiling` of grey matter, the brightest healthy tissue. The brightest
    `trim` of the brain's FLAIR is never shown to the One-Class SVM: lesions cannot be
    learnt as normal. sigma_S = 1.4826 MAD of S over the voxels that may be shown; D
    and z are smoothed. The factor lies in [floor, floor + 1): the latent score ranks,
    it cannot veto.

    Parameters
    ----------
    model : SiamesePatchAutoEncoder
    flair_z, t1w_z : (X, Y, Z) array
        Robust z-scores against white matter, working grid.
    mask : (X, Y, Z) bool array
        Brain.
    params : ScoreParams
    rng : numpy.random.Generator
    grey_matter : (X, Y, Z) bool array, optional
        From a registered prior; the brain when not given.

    Returns
    -------
    (X, Y, Z) float32 array, 0 outside the mask.

    Raises
    ------
    GridMismatchError
        When the three arrays differ in shape.
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the mask is too small.
    """
    if not flair_z.shape == t1w_z.shape == mask.shape:
        detail = f"shapes {flair_z.shape}, {t1w_z.shape} and {mask.shape}"
        raise GridMismatchError(GRID_MISMATCH.format(first="FLAIR", second="T1w or mask", detail=detail))
    flair = np.asarray(flair_z, dtype=np.float32)
    latents = embed_dense(model, network_input(flair, t1w_z, mask), mask)
    if params.score == "faithful":
        return _scatter(faithful_score(latents, params, rng), mask)
    brightness = smooth_flair_z(flair, mask, params.sigma_vox)
    shown = brightness[mask] <= np.quantile(brightness[mask], 1.0 - params.trim)
    ceiling = flair_ceiling(flair, mask if grey_matter is None else mask & grey_matter, params.ceiling)
    relevant = mask & (brightness > 0)
    ceilinged = network_input(np.minimum(flair, ceiling), t1w_z, mask)
    counterfactual = embed_dense(model, ceilinged, relevant)
    excess = surprise_excess(latents, counterfactual, relevant[mask], shown, params, rng)
    excess = smooth_flair_z(_scatter(excess, relevant), mask, params.sigma_vox)
    factor = np.float32(params.floor) + excess / (1.0 + excess)
    result: NDArray[np.float32] = np.where(relevant, brightness * factor, np.float32(0.0))
    return result


def flair_ceiling(flair_z: NDArray[np.float32], tissue: NDArray[np.bool_], k: float) -> np.float32:
    """Brightest FLAIR that healthy tissue is expected to have: ``median + k x 1.4826 MAD``.

    Median and MAD are blind to lesions that fill a minority of the tissue, which
    a high percentile is not.

    Parameters
    ----------
    flair_z : (X, Y, Z) float32 array
    tissue : (X, Y, Z) bool array
        Grey matter (the prior may be coarse).
    k : float

    Returns
    -------
    float32 scalar, z-score.

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when the tissue is empty.
    """
    values = flair_z[tissue]
    if values.size == 0:
        raise BadDataError(TOO_FEW_VOXELS.format(what="grey matter", n=0, needed=1))
    centre = np.median(values)
    return np.float32(centre + k * MAD_TO_SD * np.median(np.abs(values - centre)))


def _scatter(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Put values back into the volume, 0 elsewhere."""
    volume = np.zeros(mask.shape, dtype=np.float32)
    volume[mask] = values
    return volume


def faithful_score(
    latents: NDArray[np.float32], params: ScoreParams, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Minus the decision function of One-Class SVMs fitted to a sample of the same latents.

    Parameters
    ----------
    latents : (n, d) float32 array
    params : ScoreParams
    rng : numpy.random.Generator

    Returns
    -------
    (n,) float32 array.
    """
    ensemble = fit_patient(
        latents,
        nu=params.nu,
        gamma=params.gamma,
        n_samples=params.n_samples,
        n_models=params.n_models,
        rng=rng,
    )
    score: NDArray[np.float32] = -ensemble.decision_function(latents)
    return score


def surprise_excess(
    latents: NDArray[np.float32],
    counterfactual: NDArray[np.float32],
    relevant: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    params: ScoreParams,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Measure how much surprise the counterfactual takes away, in robust standard deviations.

    Parameters
    ----------
    latents : (n, d) float32 array
        All brain voxels.
    counterfactual : (m, d) float32 array
        Latents with FLAIR cut at the ceiling, for the m relevant voxels.
    relevant : (n,) bool array
        Which m of the n voxels these are.
    shown : (n,) bool array
        Voxels that may enter the One-Class SVM's sample.
    params : ScoreParams
    rng : numpy.random.Generator

    Returns
    -------
    (m,) float32 array, >= 0.
    """
    ensemble = fit_patient(
        latents,
        nu=params.nu,
        gamma=params.gamma,
        n_samples=params.n_samples,
        n_models=params.n_models,
        keep=shown,
        rng=rng,
    )
    rows = rng.choice(np.flatnonzero(shown), min(SPREAD_SAMPLES, int(shown.sum())), replace=False)
    usual = -ensemble.log_score_samples(latents[rows])
    spread = MAD_TO_SD * float(np.median(np.abs(usual - np.median(usual))))
    difference = ensemble.log_score_samples(counterfactual) - ensemble.log_score_samples(latents[relevant])
    excess: NDArray[np.float32] = np.maximum(difference, 0.0) / np.float32(max(spread, 1e-6))
    return excess
