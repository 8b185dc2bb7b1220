"""Every number that the scores and the lesion mask depend on: one frozen object, passed down.

Numbers of other steps stand with their step: the network's input in `core.network.patches`, the tissue
landmarks in `core.lesion.landmarks`, the checks' limits in `core.image.quality`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bids_wmh_uad.errors import BAD_VALUE, UsageError

SCORES = ("directed", "brightness", "latent", "faithful")
"""Names of the anomaly scores, see `core.score.anomaly.anomaly_map`."""

MASK_FIELDS = (
    "threshold", "tail", "edge", "gm_kappa", "gm_quantile", "quantile",
    "accept", "prior_candidates", "min_lesion_volume", "steepness", "high_load_percent", "unstable_ratio",
)  # fmt: skip
"""Names of the fields of `DetectionParameters` that only the step from anomaly map to lesions reads."""


@dataclass(frozen=True)
class DetectionParameters:
    """How a patient is scored, and where the anomaly map becomes a lesion mask.

    The method is that of Pinon, Trombetta and Lartizien, MIDL 2023, arXiv:2304.08058 ("the paper"); what
    it does not say is inferred. Numbers without a source were chosen on semi-synthetic scans and
    phantoms (`benchmarks/detection.py`). "Spread" is 1.4826 MAD, z is in spreads of white matter.

    Parameters
    ----------
    score : {"directed", "brightness", "latent", "faithful"}
        Which score, see `core.score.anomaly.anomaly_map`. Smoothing, usual FLAIR and first pass belong to
        all but "faithful", the latent factor's `floor` to "directed" alone.

        *Sample and One-Class SVM*
    nu : float
        Bound on the fraction of training outliers, in (0, 1]; 0.03 is the paper's, as far as it is known.
        Once the sample is trimmed it hardly matters.
    gamma : float or "scale"
        RBF width in standardised latents; "scale" is scikit-learn's 1 / (features x variance).
    n_samples : int
        Latents per One-Class SVM; the kernel of a fit grows with their square.
    n_models : int
        One-Class SVMs averaged, each of its own sample: the draw then matters less (inferred).
    trim : float
        Fraction of the brain's voxels, the brightest on FLAIR, left out of the sample, in [0, 0.9): lesions
        must not be learnt as normal ("directed" and "latent").
    n_spread : int
        Voxels from which the spread of normal surprise is estimated; its error is then below 1 %.
    tolerance : float
        Of the dual's solution, in units of the score (which is of the order of nu times the sample): the
        map does not depend on where the solver stopped.

        *Smoothing and noise*
    sigma_mm : float
        Least Gaussian smoothing of both contrasts and of the latent score, mm (standard deviation); also
        that of the baseline, FLAIR's z-score alone.
    sigma_max_mm : float
        Most of it, mm: beyond this small lesions are lost with the noise.
    noise : float
        What smoothing may leave of FLAIR's noise, z: noisy scans are smoothed more.

        *Usual FLAIR, given T1w and place*
    t1w_bins : int
        Bins of equal size that the brain's voxels, sorted by T1w, fall into.
    bin_voxels : int
        At least so many voxels make a bin: a median of fewer is noise.
    spread_floor : float
        Least spread of a bin, in median spreads: a bin of equal values (a clipped scan) has none.
    local_bins : int
        T1w bins of the local departure; fewer, because a neighbourhood has fewer voxels.
    local_mm : float
        Gaussian neighbourhood of the local departure, mm (standard deviation): wider than cortex and most
        lesions, narrower than a lobe.
    local_step_mm : float
        Grid on which the neighbourhoods are computed, mm: far below `local_mm`.
    local_truncate : float
        Where the Gaussian neighbourhood ends, standard deviations: a voxel there weighs 4 % of the centre's.
    local_limit : float
        How far a voxel's own departure counts at most, spreads: lesions must not move it.
    upper_spreads : float
        Upper bound of usual FLAIR, spreads above level and departure: the latent score compares the
        patch with itself cut there.
    rim_mm : float
        Depth of the brain's rim (cortex, sulci, the mask's own errors), mm.
    rim_weight : float
        Weight of a voxel at the mask's outline, in [0, 1]: lesions hardly reach it, but may.
    grey_mm : float
        Smoothing of the template's grey matter, mm: it is registered by an affine.
    grey_weight : float
        Weight of certain grey matter, in [0, 1]: bright on FLAIR in everybody, and no veto.

        *First pass: what is left out when usual FLAIR is learnt for the second time*
    first_margin : int
        So many voxels around what the first pass finds above the default `tail` are left out too (their partial volume), >= 1.

        *Latent factor*
    floor : float
        Weight of the brightness where nothing is unusual; the full weight is ``floor + 1``. The latent
        score ranks and cannot veto.
    uncovered_percent : float
        The user is told when more of the brain has no voxel-wise model, percent.

        *Threshold*
    threshold : str
        Rule of the lesion mask, ``NAME[=VALUE]``: see `rule` and `core.lesion.threshold.operating_point`.
    tail : float
        Of rule ``tail`` without a value: robust standard deviations of the score's square root.
    edge : float
        A candidate ends where the score falls below this share of its median (``tail``): around bright lesions
        partial volume is above any threshold that faint ones need.
    gm_kappa : float
        Of rule ``gm`` without a value: multiples of grey matter's `gm_quantile`.
    gm_quantile : float
        Quantile of the score in grey matter that ``gm`` multiplies, in [0, 1].
    quantile : float
        Of rule ``quantile`` without a value: quantile of the score in the brain, in [0, 1].

        *Lesions*
    accept : float
        Least probability of an accepted candidate (``tail``), in [0, 1]; 0 accepts all but those in the ventricles.
    prior_candidates : float
        The share of lesions among a scan's candidates is estimated with so many more, half of them lesions (``tail``):
        a few candidates say little of a share.
    min_lesion_volume : float
        Smaller lesions are dropped, mm3: a few voxels cannot be told from noise.
    steepness : float
        Slope of the probability, a logistic in log-score (docs/method.md has the reliability curve).
    high_load_percent : float
        The user is warned when more of the brain is marked, percent: such loads can pass for tissue.
    unstable_ratio : float
        The user is warned when the volumes at 0.8 and 1.2 x the threshold differ by more than this factor.

    Raises
    ------
    UsageError
        `errors.BAD_VALUE`, naming the field (``--threshold`` for the rule).

    Examples
    --------
    >>> from bids_wmh_uad import DetectionParameters
    >>> parameters = DetectionParameters(score="latent", threshold="quantile=0.995")
    >>> parameters.rule, parameters.uses_network
    (('quantile', 0.995), True)
    """

    score: str = "directed"

    nu: float = 0.03
    gamma: float | str = "scale"
    n_samples: int = 2000
    n_models: int = 3
    trim: float = 0.10
    n_spread: int = 20_000
    tolerance: float = 1e-5

    sigma_mm: float = 0.7
    sigma_max_mm: float = 1.5
    noise: float = 0.15

    t1w_bins: int = 40
    bin_voxels: int = 200
    spread_floor: float = 0.1
    local_bins: int = 6
    local_mm: float = 12.0
    local_step_mm: float = 2.0
    local_truncate: float = 2.5
    local_limit: float = 1.0
    upper_spreads: float = 1.0
    rim_mm: float = 6.0
    rim_weight: float = 0.5
    grey_mm: float = 2.0
    grey_weight: float = 0.7

    first_margin: int = 1

    floor: float = 3.0
    uncovered_percent: float = 5.0

    threshold: str = "tail"
    tail: float = 3.5
    edge: float = 0.7
    gm_kappa: float = 1.0
    gm_quantile: float = 0.99
    quantile: float = 0.99

    accept: float = 0.5
    prior_candidates: float = 10.0
    min_lesion_volume: float = 5.0
    steepness: float = 6.0
    high_load_percent: float = 4.0
    unstable_ratio: float = 2.0

    def __post_init__(self) -> None:
        self._require(self.score in SCORES, "score", f"choose from {SCORES}")
        self._require(0.0 < self.nu <= 1.0, "nu", "expected 0 < nu <= 1")
        gamma_ok = self.gamma == "scale" if isinstance(self.gamma, str) else self.gamma > 0
        self._require(gamma_ok, "gamma", "expected 'scale' or a positive number")
        self._require(0.0 <= self.trim < 0.9, "trim", "expected 0 <= trim < 0.9")
        for name in ("n_samples", "n_models", "n_spread", "t1w_bins", "bin_voxels", "first_margin"):
            self._require(getattr(self, name) >= 1, name, "expected at least 1")
        self._require(self.local_bins >= 2, "local_bins", "expected at least 2")
        positive = (
            "prior_candidates", "tolerance", "noise", "local_mm", "local_step_mm", "local_truncate", "rim_mm",
            "tail", "gm_kappa", "steepness", "unstable_ratio",
        )  # fmt: skip
        for name in positive:
            self._require(0.0 < getattr(self, name) < math.inf, name, f"expected {name} > 0")
        for name in ("rim_weight", "grey_weight", "edge", "gm_quantile", "quantile", "accept"):
            self._require(0.0 <= getattr(self, name) <= 1.0, name, f"expected 0 <= {name} <= 1")
        at_least_0 = (
            "sigma_mm", "sigma_max_mm", "spread_floor", "local_limit",
            "upper_spreads", "grey_mm", "floor", "uncovered_percent",
            "min_lesion_volume", "high_load_percent",
        )  # fmt: skip
        for name in at_least_0:
            self._require(getattr(self, name) >= 0.0, name, f"expected {name} >= 0")
        _ = self.rule

    @property
    def uses_network(self) -> bool:
        """Whether encoder and One-Class SVM have a part in the score: in all but "brightness"."""
        return self.score != "brightness"

    @property
    def rule_defaults(self) -> dict[str, float | None]:
        """The threshold rules, and the parameter each has when none is given (None: it must be given)."""
        return {"tail": self.tail, "gm": self.gm_kappa, "quantile": self.quantile, "value": None}

    @property
    def rule(self) -> tuple[str, float]:
        """Name and parameter of the threshold rule: ``tail=3`` is ``("tail", 3.0)``.

        Raises
        ------
        UsageError
            `errors.BAD_VALUE`: unknown rule, unreadable or impossible parameter.
        """
        name, has_value, number = self.threshold.partition("=")
        parameter = self.rule_defaults.get(name)
        try:
            if has_value:
                parameter = float(number)
        except ValueError:
            parameter = None
        possible = name in self.rule_defaults and parameter is not None and math.isfinite(parameter)
        if possible and parameter is not None:
            limits = {"quantile": 0.0 <= parameter <= 1.0, "tail": parameter > 0, "gm": parameter > 0}
            possible = limits.get(name, True)
        if not possible or parameter is None:
            expected = "expected tail[=K], gm[=KAPPA], quantile[=Q] or value=T"
            raise UsageError(BAD_VALUE.format(option="--threshold", value=self.threshold, expected=expected))
        return name, parameter

    @property
    def decides(self) -> bool:
        """Whether candidates are judged one by one: by the rule ``tail``, with the scores whose brightness the decision knows."""
        return self.rule[0] == "tail" and self.score in ("directed", "brightness")

    def of_score(self) -> dict[str, Any]:
        """Give the fields that the anomaly map depends on: it is not computed anew for another threshold."""
        return {name: value for name, value in asdict(self).items() if name not in MASK_FIELDS}

    def of_mask(self) -> dict[str, Any]:
        """Give the fields that lead from the anomaly map to lesions (`MASK_FIELDS`), and the score's name."""
        return {name: value for name, value in asdict(self).items() if name in (*MASK_FIELDS, "score")}

    def _require(self, condition: bool, field: str, expected: str) -> None:
        if not condition:
            value = getattr(self, field)
            raise UsageError(BAD_VALUE.format(option=field, value=value, expected=expected))
