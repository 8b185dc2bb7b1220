"""Size and time of a subject page: every figure of two sessions drawn, and the page put together.

``python benchmarks/report.py [--sessions N]`` makes a phantom at 1 mm (no pipeline runs: its truth stands in for
the results), draws all figures as a session's graph does, writes the page, and prints one JSON line:
megabytes, seconds to draw one session, seconds to put the page together, and their ratio to the targets
(5 MB, 15 s).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

os.environ.setdefault("NO_ET", "1")

import nibabel as nib
import numpy as np
from scipy import ndimage

TARGET_MB, TARGET_S = 5.0, 15.0


def draw_session(figures: Path, prefix: str, subject: object) -> tuple[float, float]:
    """Draw one session's figures; return the seconds, and those that the CPU worked on it."""
    from bids_wmh_uad.core.score.explain import explain
    from bids_wmh_uad.core.score.scan import Scan
    from bids_wmh_uad.models import load_model
    from bids_wmh_uad.reports.figures import charts
    from bids_wmh_uad.reports.figures import lesions as lesion_figures
    from bids_wmh_uad.reports.figures import scans as draw
    from bids_wmh_uad.reports.figures.viewer import write_viewer

    flair, t1w, lesions, brain = (
        nib.as_closest_canonical(getattr(subject, name)) for name in ("flair", "t1w", "lesions", "brain")
    )
    mask = brain.get_fdata() > 0
    z = [image.get_fdata(dtype=np.float32) / np.median(image.get_fdata()[mask]) - 1 for image in (flair, t1w)]
    truth = lesions.get_fdata() > 0
    anomaly = nib.Nifti1Image(
        (ndimage.gaussian_filter(np.maximum(z[0], 0), 0.7) * mask).astype(np.float32), flair.affine
    )
    model, _ = load_model("default")
    start = perf_counter(), process_time()
    sample = vars(
        explain(
            model,
            Scan(z[0], z[1], mask),
            {"white matter": mask & ~truth, "lesions": truth},
            np.random.default_rng(0),
        )
    )

    def out(name: str) -> Path:
        return figures / f"{prefix}_desc-{name}_FLAIR.svg"

    lesion_figures.plot_lesions(flair, lesions, out("lesions"), mask=brain)
    lesion_figures.plot_anomaly_map(flair, anomaly, 0.4, out("anomaly"), lesions=lesions, mask=brain)
    none = nib.Nifti1Image(np.zeros(flair.shape, np.uint8), flair.affine)
    write_viewer(
        flair, anomaly, 0.4, out("viewer").with_suffix(".json"), mask=brain, lesions=lesions, rejected=none
    )
    draw.plot_brain_mask(flair, brain, out("brain"))
    draw.plot_registration(flair, t1w, out("coreg"), mask=brain)
    draw.plot_template_registration(flair, t1w, out("norm"), mask=brain)
    charts.plot_score_histogram(anomaly, brain, 0.4, out("histogram"))
    charts.plot_patches(sample, out("patches"))
    charts.plot_latents(sample, out("latents"))
    return perf_counter() - start[0], process_time() - start[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2)
    options = parser.parse_args()
    from bids_wmh_uad.phantom import PhantomSpec, make_subject
    from bids_wmh_uad.reports.subject import write_subject_report

    size = (1.0, 1.0, 1.0)
    spec = PhantomSpec(
        seed=1, lesion_volume_ml=20, flair_zooms=size, t1w_zooms=size, misalignment=0, oblique=0
    )
    subject = make_subject(spec)
    with TemporaryDirectory(prefix="wmhbench") as directory:
        root = Path(directory)
        drawn = []
        for number in range(options.sessions):
            prefix = f"sub-1_ses-{number}"
            drawn.append(draw_session(root / "sub-1" / "figures", prefix, subject))
            summary = root / "sub-1" / f"ses-{number}" / "anat" / f"{prefix}_desc-wmh_summary.json"
            summary.parent.mkdir(parents=True)
            summary.write_text(json.dumps({"wmh_volume_ml": 20.0, "warnings": []}))
        pages = []
        for _ in range(2):  # the first also imports nireports and matplotlib
            start = perf_counter()
            write_subject_report(root, "1")
            pages.append(perf_counter() - start)
        megabytes = max(page.stat().st_size for page in root.glob("sub-1*.html")) / 1e6
    walls, busy = zip(*drawn, strict=True)
    slowest = max(walls) + pages[0]
    result = {
        "benchmark": "report", "sessions": options.sessions, "largest_page_mb": round(megabytes, 2),
        "draw_session_s": [round(value, 2) for value in walls], "draw_session_cpu_s": [round(value, 2) for value in busy], "page_s": [round(value, 2) for value in pages],
        "share_of_5_mb": round(megabytes / TARGET_MB, 2), "share_of_15_s": round(slowest / TARGET_S, 2), "cpus": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
