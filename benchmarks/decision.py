"""Candidates for lesions: what tells lesions from the rest, the decision's weights, and what the latent space adds.

One JSON line; with ``--table`` readable tables first. Phantoms, made and preprocessed once into ``build/detection`` (a
quarter of an hour), give candidates whose truth is known: their lesions, and the normal bright structures of both
patients and controls. A logistic regression on `core.lesion.decision.evidence` is fitted to them: its weights are
`LesionDecision`'s (``fit``; no real person takes part). Then:

- ``auc``, ``ap``: of each piece of evidence, and of the decision, among the candidates of phantoms (by five-fold
  cross-validation over phantoms), and of the real and imprinted scans of ``../shared/data`` where present;
- ``latent``: the same with one more piece of evidence, the surprise of the candidates' latents under a One-Class SVM
  of the bright structures that are no lesion (pooled over the phantoms of the training folds): by the shipped encoder,
  and by one that nobody trained.

    python benchmarks/decision.py --table
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_wmh_uad.core.lesion.decision import evidence

PHANTOMS = (13, 7, 101)
"""Patients, controls and seed of the phantoms that the weights are learnt from."""
LESION_SHARE = 0.2
"""A candidate is a lesion if at least so much of it is, and none if nothing is; those between are left out."""
PATCHES = 8
"""Patches of a candidate whose latents are looked at: those of its highest scores."""
NAMES = tuple(evidence(next(iter(()), None)) if False else ("peak", "thickness", "white", "fluid"))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of many scans.

    Attributes
    ----------
    scan : (n,) array of str
    evidence : (n, k) array
        In the order of `NAMES`.
    lesion : (n,) bool array
    typical_mm3 : (n,) array
    latents : dict of str to (n, p, d) array
        By encoder: of p patches each.
    """

    scan: NDArray[Any]
    evidence: NDArray[np.float64]
    lesion: NDArray[np.bool_]
    latents: dict[str, NDArray[np.float32]]
