"""One-Class SVM of a patient's own latents, scored at whole-brain scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.svm import OneClassSVM

from bids_wmh_uad.errors import BAD_VALUE, TOO_FEW_VOXELS, BadDataError

MINIMUM_SAMPLES = 50
"""Fewer training latents than this say nothing about a 16-d distribution."""

Latents = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Robust per-feature standardisation ``(x - median) / (1.4826 MAD)``.

    Parameters
    ----------
    centre, scale : (d,) float64 arrays
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, latents: NDArray[Any]) -> Standardiser:
        """Median and MAD of (n, d) latents; a feature of zero MAD gets its standard deviation, or 1."""
        sample = np.asarray(latents, dtype=np.float64)
        centre = np.median(sample, axis=0)
        scale = 1.482602218505602 * np.median(np.abs(sample - centre), axis=0)
        scale = np.where(scale > 0, scale, sample.std(axis=0))
        return cls(centre, np.where(scale > 0, scale, 1.0))

    def __call__(self, latents: NDArray[Any]) -> Latents:
        """Standardise (n, d) latents; float32."""
        return ((latents - self.centre) / self.scale).astype(np.float32)


@dataclass(frozen=True, eq=False)
class OneClassEnsemble:
    """A mean of RBF One-Class SVMs that share features and gamma: one weighted kernel sum.

    scikit-learn's sign law: `score_samples` larger = more normal,
    ``decision_function = score_samples - offset_``, inlier > 0.

    Parameters
    ----------
    standardiser : Standardiser
        Applied before the kernel.
    support_vectors : (m, d) float32 array
        Of all members, standardised.
    dual_coef : (m,) float64 array
        Their coefficients, divided by the number of members.
    gamma : float
        RBF width, in standardised features: ``k(x, y) = exp(-gamma |x - y|^2)``.
    offset_ : float
        Mean of the members' offsets.
    """

    standardiser: Standardiser
    support_vectors: Latents
    dual_coef: NDArray[np.float64]
    gamma: float
    offset_: float

    def log_score_samples(
        self, latents: NDArray[Any], chunk: int = 32768, dtype: torch.dtype = torch.float32
    ) -> NDArray[np.float32]:
        """Log of `score_samples`, without underflow far from all support vectors.

        Squared distances are expanded, so that the work is one matrix product.

        Parameters
        ----------
        latents : (n, d) array
        chunk : int
            Rows per matrix product; bounds the memory, not the result.
        dtype : torch.dtype
            Of the arithmetic: float32 is within about 1e-5 of float64, relative to the score.

        Returns
        -------
        (n,) array of that type: ``log sum_i a_i exp(-gamma |x - s_i|^2)``.
        """
        origin = self.support_vectors.mean(axis=0)  # small numbers keep the expansion accurate
        vectors = torch.from_numpy(self.support_vectors).to(dtype) - torch.from_numpy(origin).to(dtype)
        linear = (2.0 * self.gamma * vectors).T.contiguous()
        constant = torch.from_numpy(np.log(self.dual_coef)).to(dtype) - self.gamma * (vectors * vectors).sum(
            1
        )
        result = torch.empty(len(latents), dtype=dtype)
        with torch.inference_mode():
            for start in range(0, len(latents), chunk):
                part = torch.from_numpy(self.standardiser(latents[start : start + chunk])).to(dtype)
                part -= torch.from_numpy(origin).to(dtype)
                exponent = torch.addmm(constant, part, linear)
                peak = exponent.amax(1, keepdim=True)
                total = exponent.sub_(peak).exp_().sum(1).log_()
                own = self.gamma * (part * part).sum(1)
                result[start : start + chunk] = total + peak[:, 0] - own
        scores: NDArray[np.float32] = result.numpy()
        return scores

    def score_samples(
        self, latents: NDArray[Any], chunk: int = 32768, dtype: torch.dtype = torch.float32
    ) -> NDArray[np.float32]:
        """Weighted kernel sum of (n, d) latents: larger = more normal."""
        scores: NDArray[np.float32] = np.exp(self.log_score_samples(latents, chunk, dtype))
        return scores

    def decision_function(
        self, latents: NDArray[Any], chunk: int = 32768, dtype: torch.dtype = torch.float32
    ) -> NDArray[np.float32]:
        """``score_samples - offset_``: positive = inlier."""
        scores = self.score_samples(latents, chunk, dtype)
        return scores - scores.dtype.type(self.offset_)


def resolve_gamma(gamma: float | str, standardised: NDArray[Any]) -> float:
    """Resolve gamma: a number, or "scale" = ``1 / (d Var X)`` of the standardised sample.

    Raises
    ------
    BadDataError
        When it is neither.
    """
    if gamma == "scale":
        variance = float(np.asarray(standardised, dtype=np.float64).var())
        return 1.0 / (standardised.shape[1] * variance) if variance > 0 else 1.0
    if isinstance(gamma, str) or not gamma > 0:
        raise BadDataError(BAD_VALUE.format(option="gamma", value=gamma, expected="a number > 0 or 'scale'"))
    return float(gamma)


def fit_patient(
    latents: NDArray[Any],
    *,
    nu: float,
    gamma: float | str,
    n_samples: int,
    n_models: int,
    keep: NDArray[np.bool_] | None = None,
    rng: np.random.Generator,
) -> OneClassEnsemble:
    """Fit One-Class SVMs to random samples of one patient's own latents.

    Features are standardised by the median and MAD of the latents that may be
    drawn: the lesions' tail then does not set the scale. All members share
    features and gamma, so that their mean is one kernel sum.

    Parameters
    ----------
    latents : (n, d) array
        One row per brain voxel.
    nu : float
        Bound on the fraction of training outliers, in (0, 1].
    gamma : float or "scale"
        RBF width in standardised features.
    n_samples : int
        Latents per member (fewer where there are not enough).
    n_models : int
        Members, each with its own sample.
    keep : (n,) bool array, optional
        Rows that may be drawn (trimmed sampling); all when not given.
    rng : numpy.random.Generator

    Returns
    -------
    OneClassEnsemble

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when fewer than 50 finite rows may be drawn.
    """
    usable = np.isfinite(latents).all(axis=1)
    candidates = np.flatnonzero(usable if keep is None else usable & keep)
    if candidates.size < MINIMUM_SAMPLES:
        raise BadDataError(
            TOO_FEW_VOXELS.format(what="one-class sample", n=candidates.size, needed=MINIMUM_SAMPLES)
        )
    size = min(n_samples, candidates.size)
    samples = [latents[rng.choice(candidates, size, replace=False)] for _ in range(n_models)]
    pooled = np.concatenate(samples)
    standardiser = Standardiser.fit(pooled)
    width = resolve_gamma(gamma, standardiser(pooled))
    members = [OneClassSVM(kernel="rbf", nu=nu, gamma=width).fit(standardiser(s)) for s in samples]
    return OneClassEnsemble(
        standardiser,
        np.concatenate([member.support_vectors_ for member in members]).astype(np.float32),
        np.concatenate([member.dual_coef_[0] for member in members]) / n_models,
        width,
        float(np.mean([member.offset_[0] for member in members])),
    )
