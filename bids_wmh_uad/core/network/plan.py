"""How the auto-encoder is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bids_wmh_uad.core.parameters import DetectionParameters

OBJECTIVES = ("siamese", "ocsvm-guided")
"""Names of what training minimises, see `Plan`."""
LEARNING_RATE = 3e-3
"""Learning rate of Adam at the beginning, dimensionless."""


@dataclass(frozen=True)
class Plan:
    """What is trained for how long.

    Parameters
    ----------
    epochs, steps : int
        At most so many epochs, of so many steps each.
    alpha : float
        Weight of the cosine term, >= 0; 0 = plain auto-encoder.
    focus : float
        Width of `autoencoder.focus_window`, voxels; 0 = the whole patch alike.
    objective : {"siamese", "ocsvm-guided"}
        The second adds `guided.guidance`.
    nu, guidance : float
        Of the guiding One-Class SVM, and its weight.
    patience : int
        Stop after so many epochs without a lower held-out loss.
    lr : float
        Learning rate of Adam at the beginning; it falls to 0 along a half cosine.
    """

    epochs: int
    steps: int
    alpha: float = 0.005
    focus: float = 1.5
    objective: str = "siamese"
    nu: float = DetectionParameters.nu
    guidance: float = 1.0
    patience: int = 3
    lr: float = LEARNING_RATE

    @property
    def total(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        return 0.5 * self.lr * (1.0 + math.cos(math.pi * step / self.total))
