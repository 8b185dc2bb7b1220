"""What `detect` returns, and reading it from the participant level's files."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.errors import SessionWarning
from bids_wmh_uad.images import read_image
from bids_wmh_uad.reports.figures.mosaic import PROLOG

if TYPE_CHECKING:
    import nibabel as nib
    import pandas as pd
    from matplotlib.figure import Figure

    from bids_wmh_uad.bids.dataset import Session

SHOWN_ROWS = 10
"""Largest number of lesions in a notebook's table."""
SHOWN_COLUMNS = ("index", "region", "volume_mm3", "x", "y", "z", "max_score", "probability")
"""Names of the columns of a notebook's table."""


@dataclass(frozen=True, eq=False, repr=False)
class Detection:
    """White matter hyperintensities of one session: everything that the participant level writes, in memory.

    Images are nibabel's, on the FLAIR's own grid: its shape, affine, qform and sform.

    Attributes
    ----------
    anomaly_map : Nifti1Image
        float32; larger = more abnormal, 0 outside the brain.
    probability : Nifti1Image
        float32 in [0, 1]; 0.5 at the threshold.
    mask : Nifti1Image
        uint8; 1 in accepted lesions.
    labels, rejected_labels : Nifti1Image
        int32; the numbers of the rows of `lesions` and `rejected`, 1 = the largest.
    flair : Nifti1Image
        float32; bias-corrected, in the scanner's unit.
    brain : Nifti1Image
        uint8 brain mask.
    lesions, rejected : DataFrame
        One row for each lesion, and for each candidate that was not taken for one, with the `reason`. The columns
        are those of ``*_desc-lesions_dseg.tsv`` in "Outputs"; missing values are NaN.
    summary : dict
        ``*_desc-wmh_summary.json``: volumes in mL, counts, threshold, checks of the scans, versions.
    warnings : tuple of SessionWarning
        What to know before you use the numbers, with a ``code`` and a ``text``; empty if there is nothing.
    figures : dict
        SVG texts of the participant's page, by name: "lesions", "anomaly", "brain", "coreg", "norm", ...

    See Also
    --------
    detect : Makes one.

    Examples
    --------
    >>> from bids_wmh_uad import Detection, detect
    >>> from bids_wmh_uad.phantom import PhantomSpec, make_subject
    >>> coarse = PhantomSpec(seed=1, head=False, flair_zooms=(2.5, 2.5, 6), t1w_zooms=(3, 3, 3))
    >>> phantom = make_subject(coarse)
    >>> found = detect(phantom.flair, phantom.t1w, score="brightness", work_dir="example")
    >>> isinstance(found, Detection)
    True
    >>> found
    <Detection: ... lesions, ... mL (... to ... mL), ... % of the brain mask; ... candidates rejected; ... warnings>
    >>> volumes = found.lesions.groupby("region")["volume_mm3"].sum() / 1000
    >>> bool(abs(volumes.sum() - found.summary["wmh_volume_ml"]) < 0.01)
    True
    >>> found.plot(n_slices=6).savefig("lesions.png")
    """

    anomaly_map: nib.Nifti1Image
    probability: nib.Nifti1Image
    mask: nib.Nifti1Image
    labels: nib.Nifti1Image
    rejected_labels: nib.Nifti1Image
    flair: nib.Nifti1Image
    brain: nib.Nifti1Image
    lesions: pd.DataFrame
    rejected: pd.DataFrame
    summary: dict[str, Any]
    warnings: tuple[SessionWarning, ...]
    figures: dict[str, str]

    def plot(self, n_slices: int = 18) -> Figure:
        """Draw axial FLAIR slices through the brain, lesions outlined in red, rejected candidates in blue.

        Parameters
        ----------
        n_slices : int
            Evenly spread over the brain.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it; ``savefig`` writes it.
        """
        from bids_wmh_uad.reports.figures.plots import plot_slices

        return plot_slices(self.flair, self.brain, self.labels, self.rejected_labels, n_slices)

    @property
    def headline(self) -> str:
        """Number and volume of the lesions in a line."""
        numbers = self.summary
        return (
            f"{numbers['lesion_count']} lesions, {numbers['wmh_volume_ml']:.2f} mL "
            f"({numbers['volume_ml_lower']:.2f} to {numbers['volume_ml_upper']:.2f} mL), "
            f"{numbers['wmh_percent_icv']:.2f} % of the brain mask; "
            f"{numbers['rejected_count']} candidates rejected; {len(self.warnings)} warnings"
        )

    def __repr__(self) -> str:
        return f"<Detection: {self.headline}>"

    def _repr_html_(self) -> str:
        """For notebooks: the headline, the warnings, the page's figure of the lesions, and the largest of them."""
        columns = [name for name in SHOWN_COLUMNS if name in self.lesions]
        table = (
            self.lesions[columns]
            .head(SHOWN_ROWS)
            .to_html(index=False, border=0, float_format="{:.4g}".format)
        )
        left = len(self.lesions) - SHOWN_ROWS
        return "".join([
            f"<p><b>{escape(self.headline)}</b></p>",
            *(f"<p>Warning: {escape(warning.text)}</p>" for warning in self.warnings),
            self.figures.get("lesions", "").removeprefix(PROLOG),
            table,
            f"<p>and {left} smaller ones</p>" if left > 0 else "",
            "<p>Research software: not for diagnosis or any clinical use.</p>",
        ])  # fmt: skip


def read_detection(output_dir: Path, session: Session) -> Detection:
    """Read the finished results of a session.

    Parameters
    ----------
    output_dir : Path
        Of the participant level.
    session : Session
    """
    import pandas as pd

    paths = {name: derivatives.output_path(output_dir, session, name) for name in derivatives.OUTPUTS}
    images = {
        "anomaly_map": "anomaly", "probability": "probability", "mask": "mask", "labels": "lesions",
        "rejected_labels": "rejected", "flair": "flair", "brain": "brain",
    }  # fmt: skip
    tables = {"lesions": "table", "rejected": "rejected_table"}
    summary = derivatives.read_summary(paths["summary"])
    drawn = derivatives.figure_path(output_dir, session, "*")
    start, end = drawn.name.split("*")
    return Detection(
        **{name: read_image(paths[output]) for name, output in images.items()},
        **{name: pd.read_csv(paths[output], sep="\t", na_values="n/a") for name, output in tables.items()},
        summary=summary,
        warnings=tuple(SessionWarning(**warning) for warning in summary["warnings"]),
        figures={
            path.name.removeprefix(start).removesuffix(end): path.read_text(encoding="utf-8")
            for path in sorted(drawn.parent.glob(drawn.name))
        },
    )
