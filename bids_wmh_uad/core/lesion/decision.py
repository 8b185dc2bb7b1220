"""Which candidates are lesions: a probability for each, from what is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bids_wmh_uad.core.lesion.candidates import Candidate

IN_VENTRICLES = "in the ventricles"
"""Reason of what lies inside the ventricles: no candidate there is a lesion, whatever its probability."""
REASONS = {
    "peak": "faint",
    "white": "little white matter around",
    "fluid": "fluid around",
    "between": "between the ventricles",
    "contrast": "hardly brighter than around it",
    "latent": "looks like normal tissue to the network",
}
"""What a user reads of the evidence that speaks most against a candidate."""
LARGEST_WEIGHT = 1e6
"""Largest weight, log-odds: sums of several stay far from infinity."""
EM_STEPS, EM_TOLERANCE = 100, 1e-4
"""Steps of the prevalence's estimation at most, and log-odds below which it moves no more."""
LEAST_CONTRAST = 0.1
"""Contrast below which less says nothing more, white matter's spreads: there is no logarithm of none."""
HIGHEST_PEAK = 20.0
"""Peak beyond which more says nothing more, thresholds; it also stands for any at a threshold of 0."""


def evidence(candidate: Candidate) -> dict[str, float]:
    """Give what the decision looks at, by the names of `LesionDecision`'s weights.

    Peak and contrast enter as logarithms: twice as bright is as much more, however bright. Volume and thickness do not enter: they
    tell little more than the peak, and with weights below 0 they had confluent lesions rejected for their size.
    """
    return {
        "peak": math.log(min(candidate.peak, HIGHEST_PEAK)),
        "white": candidate.white,
        "fluid": candidate.fluid,
        "between": candidate.between,
        "contrast": math.log(max(candidate.contrast, LEAST_CONTRAST)),
    }


def evidence_names() -> tuple[str, ...]:
    """Names of the evidence without the network's, in the order of `evidence`."""
    return tuple(name for name in REASONS if name != "latent")


@dataclass(frozen=True)
class LesionDecision:
    """Logistic regression of being a lesion on what is known of a candidate.

    The weights are not set by hand: `benchmarks/decision.py` learns them from phantoms and from lesion shapes imprinted on
    people's tissue; of real lesions' labels their shapes go in, and where not to look. Those here do without a network and
    serve any model; a model directory may bring its own, with a direction in its latent space (`models.load_decision`).

    Parameters
    ----------
    intercept : float
        Log-odds where all else is 0.
    peak, white, fluid, between, contrast : float
        Log-odds for each unit of `evidence`.
    latent : tuple of float
        Log-odds for each unit of a patch's latents (`Candidate.latent` is the sum); empty without a network.
    typical : tuple of float
        `evidence` and latent log-odds of the phantoms' median lesion: a rejected candidate is compared with it to name
        the reason.

    Raises
    ------
    ValueError
        When `typical` has another length, or a weight is no number of at most `LARGEST_WEIGHT`.
    """

    intercept: float = -2.422
    peak: float = 2.145
    white: float = 2.212
    fluid: float = -8.802
    between: float = -10.778
    contrast: float = 1.116
    latent: tuple[float, ...] = ()
    typical: tuple[float, ...] = (0.784, 0.908, 0.0, 0.0, 1.307, 0.0)

    def __post_init__(self) -> None:
        if len(self.typical) != len(REASONS):
            raise ValueError(f"typical has {len(self.typical)} values instead of {len(REASONS)}")
        weights = [self.intercept, *(getattr(self, name) for name in evidence_names())]
        for value in (*weights, *self.latent, *self.typical):
            if not isinstance(value, Real) or not abs(float(value)) <= LARGEST_WEIGHT:  # NaN too
                raise ValueError(f"{value} is no weight")

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> LesionDecision:
        """Read what ``asdict`` and JSON made of one.

        Raises
        ------
        TypeError, ValueError
            For unknown and missing names, and what is no number.
        """
        if missing := sorted(field.name for field in fields(cls) if field.name not in recorded):
            raise ValueError(f"lacks {', '.join(missing)}")
        values: dict[str, Any] = {
            name: tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)
            for name, value in recorded.items()
        }
        return cls(**values)

    def for_scan(self, candidates: Sequence[Candidate], half: float) -> LesionDecision:
        """The decision with the prevalence of a scan's own candidates: only its intercept changes.

        The weights were learnt from as many lesions as others. In a scan without lesions nearly all candidates are
        normal, and those that look like lesions as well as not are, too; in one with many it is the other way round. The
        share of lesions is estimated from the candidates themselves, by expectation maximisation (Saerens, Latinne and
        Decaestecker, Neural Comput 2002, doi:10.1162/089976602753284446).

        Parameters
        ----------
        candidates : sequence of Candidate
        half : float
            So many further candidates, half of them lesions, are thought to be there: a few real ones say little of a
            share. Of very many the share is a half, as it was where the weights were learnt.
        """
        odds = np.array([self.log_odds(candidate) for candidate in candidates])
        shift = 0.0
        for _ in range(EM_STEPS):
            lesions = half / 2 + float((1 / (1 + np.exp(-np.clip(odds + shift, -30.0, 30.0)))).sum())
            before, shift = shift, math.log(lesions / (half + len(odds) - lesions))
            if abs(shift - before) < EM_TOLERANCE:
                break
        return replace(self, intercept=max(-LARGEST_WEIGHT, min(LARGEST_WEIGHT, self.intercept + shift)))

    def log_odds(self, candidate: Candidate) -> float:
        """Log-odds that a candidate is a lesion."""
        return self.intercept + sum(self._parts(evidence(candidate), candidate.latent).values())

    def probability(self, candidate: Candidate) -> float:
        """Probability that a candidate is a lesion, in (0, 1)."""
        odds = max(-30.0, min(30.0, self.log_odds(candidate)))  # beyond, 1 itself would come out
        return 1 / (1 + math.exp(-odds))

    def probability_of_peak(self, peak: NDArray[Any]) -> NDArray[np.float64]:
        """Probability of candidates of which only the peak is known, in thresholds; else they are typical lesions.

        Parameters
        ----------
        peak : array
            Above 0.

        Returns
        -------
        float64 array of the same shape
        """
        typical = dict(zip(evidence_names(), self.typical, strict=False))
        others = self._parts(typical | {"peak": 0.0}, self.typical[-1])
        odds = self.intercept + sum(others.values()) + self.peak * np.log(np.minimum(peak, HIGHEST_PEAK))
        chance: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(odds, -30.0, 30.0)))
        return chance

    def reason(self, candidate: Candidate) -> str:
        """Name what speaks most against a candidate, in comparison with the typical lesion: one of `REASONS`."""
        own = evidence(candidate)
        typical = self._parts(dict(zip(evidence_names(), self.typical, strict=False)), self.typical[-1])
        parts = self._parts(own, candidate.latent)
        return REASONS[min(parts, key=lambda name: parts[name] - typical[name])]

    def _parts(self, values: dict[str, float], latent: float) -> dict[str, float]:
        """Log-odds by piece of evidence."""
        weights = {name: getattr(self, name) for name in values}
        return {name: weights[name] * value for name, value in values.items()} | {
            "latent": latent if self.latent else 0.0
        }
