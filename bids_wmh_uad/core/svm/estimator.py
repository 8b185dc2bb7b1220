"""The One-Class SVM as a scikit-learn estimator, and the checks of its parameters."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from bids_wmh_uad.core.svm.kernel import KernelSum
from bids_wmh_uad.core.svm.solver import scale_features, solve_dual
from bids_wmh_uad.errors import BAD_LATENTS, BAD_VALUE, BadDataError, LatentsError


class OneClassSVM(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """RBF One-Class SVM in torch, with `sklearn.svm.OneClassSVM`'s contract.

    The same dual in the same scale as libsvm's (`core.svm.solver`), solved to a stated
    tolerance in float64; it takes 100,000 samples where libsvm's time grows with the
    square of their number.

    Parameters
    ----------
    nu : float, default=0.5
        Upper bound on the fraction of training outliers and lower bound on the
        fraction of support vectors, in (0, 1].
    gamma : {"scale", "auto"} or float, default="scale"
        RBF width: ``1 / (d Var X)``, ``1 / d``, or a number > 0.
    tol : float, default=1e-6
        Largest violation of the dual's optimality conditions, in units of the score; at least 0.
    working_set : int, default=512
        Samples optimised at a time, at least 2; changes the time, not the solution.
    device : str, default="cpu"
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
    intercept_ : (1,) float64 array
        ``-offset_``.
    n_iter_ : int
        Steps of the solver.
    n_features_in_ : int
        d, seen in `fit`.

    See Also
    --------
    sklearn.svm.OneClassSVM : libsvm's solver, and other kernels.
    core.svm.paradigms.fit_patient : The same model of one patient's standardised latents.
    core.svm.voxelwise_fit.fit_voxelwise : Thousands of small models, side by side.

    Notes
    -----
    The problem of Schoelkopf et al. (2001) in libsvm's scale (Chang and Lin 2011). One difference from
    scikit-learn: at nu = 1, where every sample is at its bound and scikit-learn raises, the offset is
    the highest training score.

    References
    ----------
    * B. Schoelkopf, J. C. Platt, J. Shawe-Taylor, A. J. Smola and R. C. Williamson, "Estimating
      the support of a high-dimensional distribution", Neural Computation 13 (2001) 1443-1471.
    * C.-C. Chang and C.-J. Lin, "LIBSVM: a library for support vector machines", ACM TIST 2 (2011).

    Examples
    --------
    >>> from bids_wmh_uad import OneClassSVM
    >>> X = [[0.0], [0.44], [0.45], [0.46], [1.0]]
    >>> model = OneClassSVM(nu=0.5, gamma="auto").fit(X)
    >>> model.predict(X)
    array([-1,  1,  1,  1, -1])
    >>> model.score_samples(X).round(4)
    array([1.7799, 2.0548, 2.0556, 2.0562, 1.7333])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "nu": [Interval(Real, 0, 1, closed="right")],
        "gamma": [StrOptions({"scale", "auto"}), Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "working_set": [Interval(Integral, 2, None, closed="left")],
        "device": [str, torch.device],
    }

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
        """Solve the dual.

        Parameters
        ----------
        X : (n, d) array
            Training samples.
        y : object
            Ignored.

        Returns
        -------
        OneClassSVM
            Itself.

        Raises
        ------
        LatentsError
            `errors.BAD_LATENTS`: empty, not 2-D, NaN or infinite.
        BadDataError
            `errors.BAD_VALUE`: nu or gamma out of range; scikit-learn's text for the other parameters.
        """
        samples = self._validate(X, reset=True)
        require_nu(self.nu)
        self._gamma = 1.0 / samples.shape[1] if self.gamma == "auto" else resolve_gamma(self.gamma, samples)
        try:
            self._validate_params()
        except InvalidParameterError as error:
            raise BadDataError(str(error)) from error
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
        """Weighted kernel sum, larger = more normal.

        Parameters
        ----------
        X : (n, d) array
            float32 samples are computed in float32 where that is accurate to about 1e-5 of
            the score, all others in float64.

        Returns
        -------
        (n,) array of the arithmetic's type.
        """
        check_is_fitted(self)
        return self._kernel_sum().score_samples(self._validate(X, reset=False), self.device)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """``score_samples - offset_``, inlier > 0.

        Parameters
        ----------
        X : (n, d) array
            As in `score_samples`.

        Returns
        -------
        (n,) array of the arithmetic's type.
        """
        check_is_fitted(self)
        return self._kernel_sum().decision_function(self._validate(X, reset=False), self.device)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """+1 for inliers (decision > 0), -1 for outliers.

        Parameters
        ----------
        X : (n, d) array
            As in `score_samples`.

        Returns
        -------
        (n,) int64 array.
        """
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

    Samples without variance get 1, as in scikit-learn.

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
