"""How a patient is scored."""

from __future__ import annotations

from dataclasses import dataclass

from bids_wmh_uad.errors import (
    BAD_VALUE,
    UsageError,
)

SCORES = ("directed", "faithful")


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
        Of what may count as usual on FLAIR: robust standard deviations above grey
        matter's median (directed score only).
    floor : float
        Weight of the brightness where nothing is unusual; the full weight is ``floor + 1``
        (directed score only).
    sigma_mm : float
        Gaussian smoothing of both contrasts and of the latent score: at least so many mm
        (directed score only).
    noise : float
        What smoothing may leave of FLAIR's noise, in units of white matter's spread: noisy scans
        are smoothed more (directed score only).

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
    floor: float = 3.0
    sigma_mm: float = 0.7
    noise: float = 0.15

    def __post_init__(self) -> None:
        self._require(self.score in SCORES, "score", self.score, f"choose from {SCORES}")
        self._require(0.0 < self.nu <= 1.0, "nu", self.nu, "expected 0 < nu <= 1")
        self._require(0.0 <= self.trim < 0.9, "trim", self.trim, "expected 0 <= trim < 0.9")
        self._require(self.floor >= 0.0, "floor", self.floor, "expected floor >= 0")
        self._require(self.noise > 0.0, "noise", self.noise, "expected noise > 0")
        self._require(self.n_samples >= 1, "n_samples", self.n_samples, "expected at least 1")
        self._require(self.n_models >= 1, "n_models", self.n_models, "expected at least 1")

    @staticmethod
    def _require(condition: bool, field: str, value: object, expected: str) -> None:
        if not condition:
            raise UsageError(BAD_VALUE.format(option=field, value=value, expected=expected))
