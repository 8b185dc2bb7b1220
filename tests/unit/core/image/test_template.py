"""One function says where the template has brain."""

from __future__ import annotations

import numpy as np

from bids_wmh_uad.core.image.template import OUTLINE_LEVEL, template_brain

T1W = np.array([[[-0.01, 0.0, 0.2, 0.5, 2.0]]], dtype=np.float32)


def test_levels_are_fractions_of_the_maximum_or_in_the_templates_unit() -> None:
    assert template_brain(T1W, 0.15).ravel().tolist() == [False, False, False, True, True]
    assert template_brain(T1W, 0.15, relative=False).ravel().tolist() == [False, False, True, True, True]
    assert template_brain(T1W, OUTLINE_LEVEL, relative=False).sum() == 3
    assert not template_brain(np.zeros((2, 2, 2)), 0.1).any()
