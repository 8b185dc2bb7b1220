"""Which candidates are lesions: a probability for each, from what is known of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from bids_wmh_uad.core.lesion.candidates import Candidate

IN_VENTRICLES = "in the ventricles"
"""Reason of what lies inside the ventricles: no candidate there is a lesion, whatever its probability."""
REASONS = {
    "peak": "faint",
    "thickness": "thin",
    "white": "little white matter around",
    "fluid": "fluid around",
}
"""What a user reads of the evidence that speaks most against a candidate."""


def evidence(candidate: Candidate) -> dict[str, float]:
    """Give what the decision looks at, by the name of its weight.

    Sizes and scores enter as logarithms: twice as bright is as much more, whatever the size.

    Returns
    -------
    dict of str to float
        The fields of `LesionDecision` but its intercept.
    """
    return {
        "peak": math.log(max(candidate.peak, 1e-3)) if candidate.peak < math.inf else math.log(10.0),
        "thickness": math.log(candidate.thickness_mm),
        "white": candidate.white,
        "fluid": candidate.fluid,
    }


@dataclass(frozen=True)
class LesionDecision:
    """Logistic regression of being a lesion on what is known of a candidate.

    The weights are not set by hand: `benchmarks/decision.py --fit` learns them from phantoms, whose lesions and whose
    normal bright structures are known, and prints them; no real person's labels go in. Real patients are what it is
    tested on.

    Parameters
    ----------
    intercept : float
        Log-odds where all else is 0.
    peak, thickness, white, fluid : float
        Log-odds for each unit of `evidence`.
    typical : tuple of float
        `evidence` of the phantoms' median lesion: a rejected candidate is compared with it to name the reason.
    """

    intercept: float = 0.0
    peak: float = 1.0
    thickness: float = 1.0
    white: float = 1.0
    fluid: float = -1.0
    typical: tuple[float, float, float, float] = (0.7, 1.4, 0.7, 0.0)

    def probability(self, candidate: Candidate) -> float:
        """Probability that a candidate is a lesion, in (0, 1)."""
        return 1 / (
            1
            + math.exp(
                -max(-60.0, min(60.0, self.intercept + sum(self._parts(evidence(candidate)).values())))
            )
        )

    def reason(self, candidate: Candidate) -> str:
        """Name what speaks most against a candidate, in comparison with the typical lesion: one of `REASONS`."""
        own = evidence(candidate)
        typical = self._parts(dict(zip(own, self.typical, strict=True)))
        own = self._parts(own)
        return REASONS[min(own, key=lambda name: own[name] - typical[name])]

    def _parts(self, values: dict[str, float]) -> dict[str, float]:
        weights = asdict(self)
        return {name: weights[name] * value for name, value in values.items()}
