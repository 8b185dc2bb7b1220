"""One-Class SVMs of latents: scikit-learn's estimator, and the two paradigms with one model for all voxels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from bids_wmh_uad.core.svm.kernel import KernelSum
from bids_wmh_uad.core.svm.solver import scale_features, solve_dual
from bids_wmh_uad.errors import BAD_LATENTS, BAD_VALUE, BadDataError, LatentsError


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
