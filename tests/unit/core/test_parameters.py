"""Every number of score and mask, in one object that refuses nonsense by name."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, fields
from typing import Any

import pytest

from bids_wmh_uad.core.parameters import MASK_FIELDS, SCORES, DetectionParameters
from bids_wmh_uad.errors import UsageError

NAMES = [field.name for field in fields(DetectionParameters)]
NUMBERS = [name for name in NAMES if name not in ("score", "gamma", "threshold")]


@pytest.mark.parametrize(
    "field",
    [
        {"score": "best"}, {"nu": 0.0}, {"nu": 1.5}, {"gamma": "auto"}, {"trim": 1.0}, {"floor": -1.0},
        {"n_models": 0}, {"first_margin": 0}, {"local_bins": 1}, {"noise": 0.0}, {"local_mm": float("inf")},
        {"rim_weight": 1.1}, {"edge": -0.1}, {"accept": 1.5}, {"unstable_ratio": 0.0}, {"steepness": 0.0}, {"min_lesion_volume": -1.0},
    ],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(field: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        DetectionParameters(**field)
    assert str(caught.value).startswith(f"{next(iter(field))}: ")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [float("nan"), -1])
def test_no_number_may_be_negative_or_none_at_all(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"^{name}: "):
        DetectionParameters(**{name: value})


def test_each_field_is_documented() -> None:
    text = DetectionParameters.__doc__ or ""
    documented = re.findall(r"^ {4}(\w+(?:, \w+)*) : ", text, re.MULTILINE)
    assert [name for group in documented for name in group.split(", ")] == NAMES


def test_the_two_steps_share_out_the_fields() -> None:
    made = DetectionParameters(nu=0.1, threshold="gm=2")
    assert set(made.of_mask()) == {
        *MASK_FIELDS,
        "score",
    }  # the score's name says whether candidates are judged
    assert {**made.of_score(), **made.of_mask()} == asdict(made)
    assert DetectionParameters(**made.of_mask()).rule == ("gm", 2.0)


@pytest.mark.parametrize("threshold", ["tail", "tail=2", "gm", "quantile=0.9", "value=1"])
def test_candidates_are_judged_by_the_rule_tail_with_scores_of_brightness(threshold: str) -> None:
    judged = {score for score in SCORES if DetectionParameters(score=score, threshold=threshold).decides}
    assert judged == ({"directed", "brightness"} if threshold.startswith("tail") else set())
    for score in SCORES:
        made = DetectionParameters(score=score, threshold=threshold)
        assert DetectionParameters(**made.of_mask()).decides is made.decides


def test_settings_are_read_without_numpy_or_torch() -> None:
    code = "import sys, bids_wmh_uad.config; print({'numpy', 'torch', 'scipy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"
