"""One-Class SVMs of latents: scikit-learn's estimator, and the two paradigms with one model for all voxels."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from bids_wmh_uad.core.svm.kernel import KernelSum
from bids_wmh_uad.core.svm.solver import scale_features, solve_dual
from bids_wmh_uad.errors import BAD_LATENTS, BAD_VALUE, TOO_FEW_VOXELS, BadDataError, LatentsError

MINIMUM_SAMPLES = 50
"""Fewer training latents than this say nothing about a 16-d distribution."""
PATIENT_TOLERANCE = 1e-5
"""Of the per-patient duals, in units of the score (which is of the order of nu times the sample)."""
POOLED_TOLERANCE = 1e-3
"""Of the pooled dual: scikit-learn's default."""

NORMAL_RANGE = 2 * NormalDist().inv_cdf(0.95)
"""From the 5th to the 95th percentile of a normal distribution, in standard deviations."""

Latents = NDArray[np.float32]


class OneClassModel(Protocol):
    """What scoring needs of a fitted One-Class SVM, whichever voxels it was fitted to.

    Three paradigms fulfil it: *patient* (`fit_patient`) and *pooled* (`fit_pooled`) give one
    model for all voxels (`kernel.KernelSum`), *voxel* (`voxelwise.VoxelwiseOneClassSVM`) one
    for each.
    """

    def on(self, device: torch.device | str = "cpu") -> ScoreOperator:
        """Lay the model out on a device, for float32 latents."""


class ScoreOperator(Protocol):
    """A model on its device; thread-safe."""

    def log_score_samples(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Natural logarithm of the kernel sum of (n, d) latents: (n,), larger = more normal.

        ``voxels`` (n,) says which model scores which row, where there is more than one.
        """

    def decision_function(self, latents: Tensor, voxels: Tensor | None = None) -> Tensor:
        """Kernel sum minus offset of (n, d) latents: (n,), inlier > 0."""


class OneClassSVM(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """RBF One-Class SVM in torch, with `sklearn.svm.OneClassSVM`'s contract.

    The same dual in the same scale as libsvm's (`core.dual`), solved to a stated
    tolerance in float64; it takes 100,000 samples where libsvm's time grows with the
    square of their number.

    Parameters
    ----------
    nu : float
        Upper bound on the fraction of training outliers and lower bound on the
        fraction of support vectors, in (0, 1].
    gamma : "scale", "auto" or float
        RBF width: ``1 / (d Var X)``, ``1 / d``, or a number > 0.
    tol : float
        Largest violation of the dual's optimality conditions, in units of the score.
    working_set : int
        Samples optimised at a time; changes the time, not the solution.
    device : str
        torch device of fit and scores.

    Attributes
    ----------
    support_ : (m,) int32 array
        Indices of the support vectors, ascending.
    support_vectors_ : (m, d) float64 array
    dual_coef_ : (1, m) float64 array
        In (0, 1], sum ``nu n``.
    offset_ : (1,) float64 array
        ``decision_function = score_samples - offset_``.
    n_iter_ : int
        Pair updates of the solver.

    Notes
    -----
    Schoelkopf et al., "Estimating the support of a high-dimensional distribution",
    Neural Computation 13 (2001). One difference: at nu = 1, where every sample is at its
    bound and scikit-learn raises, the offset is the highest training score.
    """

    def __init__(
        self,
        *,
        nu: float = 0.5,
        gamma: float | Literal["scale", "auto"] = "scale",
        tol: float = 1e-6,
        working_set: int = 512,
        device: str = "cpu",
    ) -> None:
        self.nu = nu
        self.gamma = gamma
        self.tol = tol
        self.working_set = working_set
        self.device = device

    def fit(self, X: ArrayLike, y: object = None) -> OneClassSVM:  # noqa: ARG002
        """Fit to (n, d) samples; `y` is ignored.

        Raises
        ------
        LatentsError
            `errors.BAD_LATENTS`: empty, not 2-D, NaN or infinite.
        BadDataError
            `errors.BAD_VALUE`: nu or gamma out of range.
        """
        samples = self._validate(X, reset=True)
        require_nu(self.nu)
        self._gamma = 1.0 / samples.shape[1] if self.gamma == "auto" else resolve_gamma(self.gamma, samples)
        features = scale_features(torch.tensor(samples, device=self.device)[None], self._gamma)
        solution = solve_dual(features, self.nu * len(samples), tol=self.tol, working_set=self.working_set)
        alpha = solution.alpha[0].cpu().numpy()
        self.support_ = np.flatnonzero(alpha).astype(np.int32)
        self.support_vectors_ = samples[self.support_]
        self.dual_coef_ = alpha[None, self.support_]
        self.offset_ = solution.offset.cpu().numpy()
        self.intercept_ = -self.offset_
        self.n_iter_ = solution.updates
        return self

    def _validate(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        try:
            dtype = np.float64 if reset else (np.float64, np.float32)
            checked: NDArray[Any] = validate_data(self, X, reset=reset, dtype=dtype, order="C")
        except ValueError as error:
            raise LatentsError(BAD_LATENTS.format(reason=error)) from error
        return checked

    def _kernel_sum(self) -> KernelSum:
        check_is_fitted(self)
        return KernelSum(self.support_vectors_, self.dual_coef_[0], self._gamma, float(self.offset_[0]))

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Weighted kernel sum of (n, d) samples: (n,), larger = more normal.

        float32 samples are computed in float32 where that is accurate to about 1e-5 of
        the score, all others in float64.
        """
        check_is_fitted(self)
        return self._kernel_sum().score_samples(self._validate(X, reset=False), self.device)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """``score_samples - offset_`` of (n, d) samples: (n,), inlier > 0."""
        check_is_fitted(self)
        return self._kernel_sum().decision_function(self._validate(X, reset=False), self.device)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """+1 for inliers (decision > 0), -1 for outliers: (n,)."""
        return np.where(self.decision_function(X) > 0, 1, -1)


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Robust per-feature standardisation: ``x - median`` over a third of the 5-95 % range.

    (A 3.29th, so that a normal feature gets its standard deviation.) The MAD would be blind to
    more, but a feature of a trained encoder may rest at its median nearly everywhere: in units
    of its MAD its variance is a hundred times that of the others, sets gamma, and hides them.

    Parameters
    ----------
    centre, scale : (d,) float64 arrays
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, latents: NDArray[Any]) -> Standardiser:
        """From (n, d) latents; a feature without a range gets its standard deviation, or 1."""
        sample = np.asarray(latents, dtype=np.float64)
        low, centre, high = np.quantile(sample, (0.05, 0.5, 0.95), axis=0)
        scale = (high - low) / NORMAL_RANGE
        scale = np.where(scale > 0, scale, sample.std(axis=0))
        return cls(centre, np.where(scale > 0, scale, 1.0))

    def __call__(self, latents: NDArray[Any]) -> Latents:
        """Standardise (n, d) latents; float32."""
        return ((latents - self.centre) / self.scale).astype(np.float32)

    def apply(self, latents: Tensor, out: Tensor) -> Tensor:
        """Standardise (..., d) float32 latents into `out`, which may be themselves."""
        centre, scale = (torch.from_numpy(values.astype(np.float32)) for values in (self.centre, self.scale))
        return torch.sub(latents, centre, out=out).div_(scale)


def require_nu(nu: float) -> None:
    """Check that 0 < nu <= 1.

    Raises
    ------
    BadDataError
        `errors.BAD_VALUE`.
    """
    if not 0 < nu <= 1:
        raise BadDataError(BAD_VALUE.format(option="nu", value=nu, expected="a number in (0, 1]"))


def resolve_gamma(gamma: float | str, samples: NDArray[Any]) -> float:
    """Resolve gamma: a number, or "scale" = ``1 / (d Var X)`` of the (n, d) samples.

    Raises
    ------
    BadDataError
        `errors.BAD_VALUE`, when it is neither.
    """
    if isinstance(gamma, str) and gamma == "scale":
        variance = float(np.asarray(samples, dtype=np.float64).var())
        return 1.0 / (samples.shape[1] * variance) if variance > 0 else 1.0
    if isinstance(gamma, str) or not gamma > 0:
        raise BadDataError(BAD_VALUE.format(option="gamma", value=gamma, expected="a number > 0 or 'scale'"))
    return float(gamma)


def fit_patient(samples: NDArray[Any], *, nu: float, gamma: float | str, device: str = "cpu") -> KernelSum:
    """Fit the mean of several One-Class SVMs, each to its own sample of one patient's latents.

    Features are standardised by median and 5-95 % range of all samples: a tail of lesions then
    does not set the scale. The members share features and gamma, so that their mean is one
    kernel sum; their duals are solved side by side.

    Parameters
    ----------
    samples : (k, n, d) array
        One sample per member.
    nu : float
        Bound on the fraction of training outliers, in (0, 1].
    gamma : float or "scale"
        RBF width in standardised features.
    device : str

    Returns
    -------
    KernelSum

    Raises
    ------
    BadDataError
        `errors.TOO_FEW_VOXELS`, when a sample has fewer than 50 rows.
    LatentsError
        `errors.BAD_LATENTS`, when latents are NaN or infinite.
    """
    return _fit_members(samples, nu, gamma, PATIENT_TOLERANCE, device)


def fit_pooled(
    latents: NDArray[Any],
    *,
    nu: float,
    gamma: float | str,
    tol: float = POOLED_TOLERANCE,
    device: str = "cpu",
) -> KernelSum:
    """Fit one One-Class SVM to the latents of many subjects.

    The kernel is exact at every size: the solver holds a working set, not the matrix. Time
    grows with the samples times the support vectors (at least nu times the samples), scoring
    with the support vectors; `benchmarks/pooled.py` measures both.

    Parameters
    ----------
    latents : (n, d) array
    nu : float
    gamma : float or "scale"
        In standardised features (`Standardiser`).
    tol : float
        Of the dual, in units of the score, which is of the order of nu n.
    device : str

    Returns
    -------
    KernelSum

    Raises
    ------
    BadDataError, LatentsError
        As `fit_patient`.
    """
    return _fit_members(latents[None], nu, gamma, tol, device)


def _fit_members(samples: NDArray[Any], nu: float, gamma: float | str, tol: float, device: str) -> KernelSum:
    """Fit the mean of the models of (k, n, d) samples, in common features."""
    members, count, width = samples.shape
    pooled = samples.reshape(-1, width)
    standardiser, gamma = _standardise(pooled, count, nu, gamma)
    latents = standardiser(pooled).reshape(samples.shape)
    features = scale_features(torch.from_numpy(latents).to(device, torch.float64), gamma)
    solution = solve_dual(features, nu * count, tol=tol)
    alpha = solution.alpha.cpu().numpy()
    return KernelSum(
        latents[alpha > 0],
        alpha[alpha > 0] / members,
        gamma,
        float(solution.offset.mean()),
        standardiser.centre,
        standardiser.scale,
    )


def _standardise(
    latents: NDArray[Any], count: int, nu: float, gamma: float | str
) -> tuple[Standardiser, float]:
    """Check (n, d) training latents; their standardiser, and gamma in standardised features."""
    require_nu(nu)
    if count < MINIMUM_SAMPLES:
        raise BadDataError(TOO_FEW_VOXELS.format(what="one-class sample", n=count, needed=MINIMUM_SAMPLES))
    broken = int((~np.isfinite(latents)).sum())
    if broken:
        raise LatentsError(BAD_LATENTS.format(reason=f"{broken} values are NaN or infinite"))
    standardiser = Standardiser.fit(latents)
    return standardiser, resolve_gamma(gamma, standardiser(latents))
