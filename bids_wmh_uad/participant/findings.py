"""What is said of two sessions that were compared, of each lesion that was followed, and what makes it doubtful."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from bids_wmh_uad.core.change.compare import Comparison, Followed
from bids_wmh_uad.core.change.parameters import ChangeParameters
from bids_wmh_uad.core.change.tracking import STATUSES
from bids_wmh_uad.errors import OTHER_SCANNER, OTHER_SIZE, OTHER_VOXELS, SESSIONS_APART, SessionWarning
from bids_wmh_uad.participant import comparison
from bids_wmh_uad.participant.comparison import Aligned, Visit

SCANNER = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")
"""Settings of a scan that say which scanner it was, of `SCAN_SETTINGS`."""
MOTIONS = {True: "rigid", False: "affine"}
"""Names of motions, by whether they are rigid."""
SAME_SIZE_MM = 0.05
"""Difference of voxel edges that is rounding, mm."""
LEAST_CORRELATION = 0.8
"""Least correlation of two sessions' FLAIR in the brain that passes without a warning (real pairs: 0.93 and more)."""


def lesion_row(
    number: int, lesion: Followed, aligned: Aligned, place: int, params: ChangeParameters
) -> dict[str, Any]:
    """A row of the table of lesions followed."""
    x, y, z = (np.linalg.inv(aligned.space.motions[place]) @ [*lesion.centre, 1.0])[:3].tolist()
    lower, upper = lesion.change.interval(params.level)
    return {
        "index": number,
        "status": lesion.status,
        "lesions_before": ",".join(map(str, lesion.match.before)) or None,
        "lesions_after": ",".join(map(str, lesion.match.after)) or None,
        "volume_before_mm3": round(lesion.before_mm3, 1),
        "volume_after_mm3": round(lesion.after_mm3, 1),
        "change_mm3": round(lesion.change.mm3, 1),
        "change_mm3_lower": round(lower, 1),
        "change_mm3_upper": round(upper, 1),
        "p_value": lesion.p_value,
        "peak": round(lesion.peak, 2),
        **{axis: round(value, 2) for axis, value in zip("xyz", (x, y, z), strict=True)},
    }


def about_visit(visit: Visit, first: Visit) -> dict[str, Any]:
    """What is said of one of the sessions, the first of which is given, too."""
    known = ("wmh_volume_ml", "volume_ml_lower", "volume_ml_upper", "lesion_count")
    return {
        "session_id": visit.label,
        "prefix": visit.prefix,
        "acq_time": visit.time.isoformat() if visit.time else None,
        "years": comparison.years_between(first, visit),
        **{name: visit.content.get(name) for name in known},
    }


def about_pair(
    before: Visit,
    after: Visit,
    kind: str,
    found: Comparison,
    aligned: Aligned,
    places: tuple[int, int],
    params: ChangeParameters,
) -> dict[str, Any]:
    """What is said of two sessions."""
    lower, upper = found.total.interval(params.level)
    years = comparison.years_between(before, after)
    voxel = params.grid_mm**3 / 1000
    correlation = {
        name: float(np.corrcoef(*(images[place][aligned.mask] for place in places))[0, 1])
        for name, images in (("flair", aligned.flair), ("t1w", aligned.t1w))
    }
    size = aligned.space.size_difference(*places)
    warnings = _warnings(before, after, correlation["flair"])
    if not aligned.space.rigid and size > params.size_limit:
        warnings.append(OTHER_SIZE.format(before=before.label, after=after.label, percent=100 * size))
    return {
        "session_before": before.label,
        "session_after": after.label,
        "kind": kind,
        "years": years,
        "wmh_volume_ml_before": before.content.get("wmh_volume_ml"),
        "wmh_volume_ml_after": after.content.get("wmh_volume_ml"),
        "change_ml": found.total.mm3 / 1000,
        "change_ml_lower": lower / 1000,
        "change_ml_upper": upper / 1000,
        **{f"{status}_count": sum(one.status == status for one in found.lesions) for status in STATUSES},
        "new_volume_ml": float((found.new > 0).sum()) * voxel,
        "enlarging_volume_ml": float((found.enlarging > 0).sum()) * voxel,
        "shrinking_volume_ml": float((found.gone > 0).sum()) * voxel,
        **{f"correlation_{name}": value for name, value in correlation.items()},
        "size_difference_percent": 100 * size,
        "motion": MOTIONS[aligned.space.rigid],
        "prefix": after.prefix,
        "warnings": [asdict(warning) for warning in warnings],
    }


def _warnings(before: Visit, after: Visit, correlation: float) -> list[SessionWarning]:
    """What makes a comparison doubtful."""
    names = {"before": before.label, "after": after.label}
    scans = [visit.content.get("inputs", {}).get("FLAIR", {}) for visit in (before, after)]
    warnings = []
    other = [
        f"{key}: {scans[0][key]}, {scans[1][key]}"
        for key in SCANNER
        if all(key in scan for scan in scans) and scans[0][key] != scans[1][key]
    ]
    if other:
        warnings.append(OTHER_SCANNER.format(**names, what="; ".join(other)))
    sizes = [scan.get("voxel_size_mm") for scan in scans]
    if all(sizes) and np.abs(np.sort(sizes[0]) - np.sort(sizes[1])).max() > SAME_SIZE_MM:
        first, second = (" x ".join(f"{size:g}" for size in edges) for edges in sizes)
        warnings.append(OTHER_VOXELS.format(**names, first=first, second=second))
    if not correlation >= LEAST_CORRELATION:
        warnings.append(SESSIONS_APART.format(**names, value=correlation, limit=LEAST_CORRELATION))
    return warnings
