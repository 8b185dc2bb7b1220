"""The table of what every step took."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bids_wmh_uad.participant.stages import append_stages


def test_only_stages_of_this_run_are_listed_in_their_order(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("old", 100), ("b_first", 20), ("a_second", 10)):
        path = tmp_path / "sub_01_wf" / name / "stage.json"
        path.parent.mkdir(parents=True)
        path.write_text('{"seconds": 1.5, "cpu_seconds": 1.2, "peak_gb": 0.5}')
        os.utime(path, (now - age, now - age))
    for since in (now - 50, now - 15):  # two batches, one table
        append_stages(tmp_path / "stages.tsv", [tmp_path / "sub_01_wf"], since)
    assert (tmp_path / "stages.tsv").read_text().splitlines() == [
        "session\tstage\tseconds\tcpu_seconds\tpeak_gb",
        "sub_01\tb_first\t1.5\t1.2\t0.5", "sub_01\ta_second\t1.5\t1.2\t0.5", "sub_01\ta_second\t1.5\t1.2\t0.5",
    ]  # fmt: skip
