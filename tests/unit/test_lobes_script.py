"""The scripts that derive atlases: every gyrus has its lobe, labels go on as the page says, and what is shipped is what is derived."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from bids_wmh_uad.core.lesion.lobes import LOBES
from bids_wmh_uad.imaging.atlas import LANDMARKS_FILE

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("lobes")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_gyrus_of_both_sides_has_its_lobe_and_nuclei_have_none(script: ModuleType) -> None:
    gyri = [gyrus for names in script.GYRI.values() for gyrus in names.split()]
    assert len(gyri) == len(set(gyri)) == 34
    table = [
        {"id": str(number), "label": gyrus, "hemisphere": side, "structure": "cortex"}
        for number, (side, gyrus) in enumerate(((s, g) for s in "LR" for g in gyri), start=1)
    ]
    table.append({"id": "69", "label": "caudate", "hemisphere": "L", "structure": "subcortex/brainstem"})
    numbers = script.lobe_numbers(table)
    assert numbers[0] == numbers[69] == 0
    assert set(numbers[1:69]) == set(range(1, 1 + len(LOBES)))
    assert LOBES[numbers[1 + gyri.index("precuneus")] - 1] == "left_parietal"
    assert LOBES[numbers[1 + 34 + gyri.index("fusiform")] - 1] == "right_temporal"


def test_cingulate_and_insula_end_after_5_mm_and_lobes_do_not(script: ModuleType) -> None:
    frontal, insula = 1 + LOBES.index("left_frontal"), 1 + LOBES.index("left_insula")
    lobes = np.zeros((30, 1, 1), np.uint8)
    lobes[0], lobes[29] = insula, frontal
    nuclei = np.zeros(lobes.shape, bool)
    nuclei[3] = True
    found = script.extend(lobes, nuclei).ravel()
    expected = np.array([insula] * 6 + [frontal] * 24)
    expected[3] = 0
    np.testing.assert_array_equal(found, expected)


def test_the_shipped_landmarks_are_those_that_the_script_derives() -> None:
    derived, shipped = load("landmarks").derive(), nib.load(LANDMARKS_FILE)
    np.testing.assert_array_equal(shipped.affine, derived.affine)
    different = np.asanyarray(shipped.dataobj) != np.asanyarray(derived.dataobj)
    assert (
        np.count_nonzero(different) <= 20
    )  # of 900,000: another machine's arithmetic may move the tentorium's border
