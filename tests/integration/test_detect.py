"""`detect` gives what the participant level writes for the same scans, and leaves the caller's process alone."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_wmh_uad import detect, evaluate
from bids_wmh_uad.bids.derivatives import read_summary

if TYPE_CHECKING:
    from program import Run

    from bids_wmh_uad import Detection
    from bids_wmh_uad.phantom import PhantomSubject

pytestmark = pytest.mark.slow
IMAGES = {
    "anomaly_map": "anomaly",
    "probability": "probability",
    "mask": "mask",
    "labels": "lesions",
    "rejected_labels": "rejected",
    "flair": "flair",
    "brain": "brain",
}
OF_ONE_RUN = {"inputs", "signature", "preprocessing", "Sources"}
"""Keys of a summary that name the files."""


@pytest.fixture(scope="module")
def found(phantom: PhantomSubject, model_dir: Path) -> Detection:
    """From images in memory; the program's run had them in compressed files."""
    return detect(phantom.flair, phantom.t1w, model=model_dir)


@pytest.mark.parametrize(("name", "output"), IMAGES.items())
def test_images_are_the_same_arrays(found: Detection, first: Run, name: str, output: str) -> None:
    image, written = getattr(found, name), nib.load(first.path("sub-01", output))
    assert image.get_data_dtype() == written.get_data_dtype()
    assert np.asanyarray(image.dataobj).tobytes() == np.asanyarray(written.dataobj).tobytes()
    assert image.header["qform_code"] == written.header["qform_code"]
    assert np.array_equal(image.affine, written.affine)


def test_tables_and_numbers_are_the_same(found: Detection, first: Run) -> None:
    for name, output in (("lesions", "table"), ("rejected", "rejected_table")):
        written = pd.read_csv(first.path("sub-01", output), sep="\t", na_values="n/a")
        pd.testing.assert_frame_equal(getattr(found, name), written)
    written = read_summary(first.path("sub-01", "summary"))
    differ = {key for key in found.summary.keys() | written if found.summary.get(key) != written.get(key)}
    assert differ <= OF_ONE_RUN
    assert [warning.code for warning in found.warnings] == [entry["code"] for entry in written["warnings"]]


def test_a_notebook_shows_it(found: Detection, tmp_path: Path) -> None:
    html = found._repr_html_()
    assert "<svg" in html
    assert f"{found.summary['lesion_count']} lesions" in html
    assert html.count("<tr") == min(len(found.lesions), 10) + 1
    figure = found.plot(n_slices=7)
    assert len(figure.axes) == 12  # two rows of six
    assert sum(bool(axes.images) for axes in figure.axes) == 7
    figure.savefig(tmp_path / "slices.png")


def test_the_callers_process_is_left_alone_and_work_is_taken_over(
    phantom: PhantomSubject, model_dir: Path, tmp_path: Path, found: Detection
) -> None:
    """From a thread, as notebooks' widgets do; a second call only makes the mask anew."""
    before, threads = dict(os.environ), threading.active_count()
    kept, results = tmp_path / "kept", []

    def twice() -> None:
        scans, settings = (phantom.flair, phantom.t1w), {"model": model_dir, "work_dir": kept}
        results.extend(detect(*scans, threshold=rule, **settings) for rule in ("tail", "quantile=0.98"))

    thread = threading.Thread(target=twice)
    thread.start()
    thread.join()
    first_, second = results
    assert dict(os.environ) == before
    assert threading.active_count() == threads
    assert first_.summary["wmh_volume_ml"] == found.summary["wmh_volume_ml"]
    assert np.array_equal(second.anomaly_map.get_fdata(), first_.anomaly_map.get_fdata())
    assert second.summary["threshold"]["name"] == "quantile"
    stages = next((kept / "derivatives" / "logs").glob("*/stages.tsv")).read_text()
    assert "\tsegment\t" in stages
    assert "\tbrain_flair\t" not in stages
    assert (kept / "derivatives" / "sub-01.html").is_file()


def test_what_is_found_can_be_evaluated(found: Detection, phantom: PhantomSubject) -> None:
    measures = evaluate(phantom.lesions, found.mask, found.anomaly_map, found.brain)
    assert 0 < measures["ap"] <= 1
    assert measures["wmh_volume_ml"] == pytest.approx(found.summary["wmh_volume_ml"], abs=1e-3)


class Interrupt(logging.Handler):
    """Ctrl-C at the program's first line."""

    def emit(self, record: logging.LogRecord) -> None:
        raise KeyboardInterrupt


def running(mark: str) -> list[str]:
    """Command lines of the processes that have `mark` in theirs."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace").replace("\0", " "))
        except OSError:  # it has ended
            continue
    return [line for line in lines if mark in line]


def test_ctrl_c_ends_the_program_too(phantom: PhantomSubject, tmp_path: Path) -> None:
    logger, handler = logging.getLogger("bids_wmh_uad"), Interrupt()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            detect(phantom.flair, phantom.t1w, score="brightness", work_dir=tmp_path / "stopped")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert running(f"{tmp_path / 'stopped'}") == []


def test_the_program_ends_with_a_killed_caller(phantom: PhantomSubject, tmp_path: Path) -> None:
    for name in ("flair", "t1w"):
        nib.save(getattr(phantom, name), tmp_path / f"{name}.nii")
    code = (
        "import logging; logging.basicConfig(level='INFO'); from bids_wmh_uad import detect; "
        "detect('flair.nii', 't1w.nii', score='brightness', work_dir='killed')"
    )
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    caller = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=surroundings, stderr=subprocess.PIPE, text=True
    )
    assert "participant level" in caller.stderr.readline()
    assert running(f"{tmp_path / 'killed'}") != []
    caller.send_signal(signal.SIGKILL)
    caller.communicate()
    until = time.monotonic() + 20
    while running(f"{tmp_path / 'killed'}") and time.monotonic() < until:
        time.sleep(0.1)
    assert running(f"{tmp_path / 'killed'}") == []
