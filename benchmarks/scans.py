"""The scans that detectors are judged on: real patients, real lesion masks imprinted on real tissue, phantoms.

Everything is preprocessed by the program itself, once, into a folder that is kept: a second run starts
at once. Nothing of it belongs in the repository.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.bids.references import find_reference
from bids_wmh_uad.bids.results import finished, read_summaries, result_path
from bids_wmh_uad.core.image.volume import Volume, WorkingGrid, voxel_sizes
from bids_wmh_uad.core.lesion.components import label_lesions
from bids_wmh_uad.core.lesion.landmarks import Tissue
from bids_wmh_uad.core.score.latent import AnomalyMap
from bids_wmh_uad.core.score.scan import Scan
from bids_wmh_uad.group.evaluation import LESION, OTHER_PATHOLOGY
from bids_wmh_uad.group.scans import read_tissue
from bids_wmh_uad.imaging.scans import read_volume

BANDS_ML = ((0.3, 2.0), (2.0, 10.0), (10.0, 30.0), (30.0, 75.0))
CONTRASTS = (0.7, 1.0, 1.4)
"""FLAIR excess of imprinted lesions, in units of what sets this host's brightest grey matter (its 99th
percentile) apart from white matter: dim, like real ones, and bright."""
T1W_SHARE = 0.5
"""T1w loses this share of what FLAIR gains, in each contrast's own robust z."""
EDGE_VOXELS = 0.8
HOST_MARGIN = 3
"""Voxels around the host's own lesions that are left out as well."""


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its truth, on the FLAIR's own grid, where users get their masks.

    Attributes
    ----------
    name, kind : str
        `kind`: ``real``, ``imprinted``, ``phantom`` or ``control`` (no lesion at all).
    tissue : Tissue
        What is scored, and what candidates are judged by.
    lesion, inside : (X, Y, Z) bool arrays
        Truth, and the voxels that count.
    landmarks : (X, Y, Z) integer array
        Ventricles, posterior fossa and cortex.
    affine : (4, 4) array
    """

    name: str
    kind: str
    tissue: Tissue
    lesion: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    landmarks: NDArray[np.integer]
    affine: NDArray[np.float64]

    @property
    def volume_ml(self) -> float:
        """Lesion volume."""
        return float(self.lesion.sum() * abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel sizes, mm."""
        x, y, z = voxel_sizes(self.affine).tolist()
        return x, y, z

    @property
    def grid(self) -> WorkingGrid:
        """What it is scored on."""
        x, y, z = self.lesion.shape
        return WorkingGrid.from_affine((x, y, z), self.affine)

    @property
    def scan(self) -> Scan:
        """The session as the scoring step has it, on the working grid."""
        return Scan.on_grid(self.grid, self.tissue)

    def own(self, found: AnomalyMap) -> AnomalyMap:
        """What the scoring step makes of maps on the working grid."""
        return found.from_grid(self.grid, self.tissue.mask)


def preprocess(bids_dir: Path, out: Path) -> None:
    """Run the participant level on the participants without results.

    Results of an older version are kept: delete the folder after a change of the preprocessing.
    """
    missing = [
        path.name
        for path in sorted(bids_dir.glob("sub-*"))
        if not any(out.glob(f"{path.name}/**/*wmh_summary.json"))
    ]
    if missing:
        command = [
            sys.executable,
            "-m",
            "bids_wmh_uad",
            str(bids_dir),
            str(out),
            "participant",
            "-w",
            f"{out}-work",
            "--score",  # the benchmarks score themselves
            "brightness",
        ]
        subprocess.run([*command, "--participant-label", *missing], check=False, stdout=subprocess.DEVNULL)


def read_cases(out: Path, reference: Path, kind: str, prefix: str = "") -> Iterator[Case]:
    """The finished sessions of a derivatives dataset that have a reference; `prefix` keeps names apart."""
    for path, summary in finished(read_summaries(out)).items():
        mask = find_reference(reference, summary["participant_id"], summary["session_id"])
        if mask is not None:
            name = "_".join(
                part for part in (summary["participant_id"], summary["session_id"]) if part != "n/a"
            )
            yield read_case(path, read_volume(mask.path), prefix + name, kind)


def read_case(summary: Path, truth: Volume, name: str, kind: str) -> Case:
    """One session as the program left it."""
    tissue, affine = read_tissue(summary)
    labels = np.asarray(truth.data, dtype=np.int16)
    landmarks = read_volume(result_path(summary, "regions")).data.astype(np.uint8)
    lesion = (labels == LESION) & tissue.mask
    kind = "control" if kind == "phantom" and not lesion.any() else kind
    inside = tissue.mask & (labels != OTHER_PATHOLOGY)
    return Case(name, kind, tissue, lesion, inside, landmarks, affine)


def imprint(host: Case, mask: NDArray[np.bool_], contrast: float, name: str, seed: int) -> Case:
    """Put a patient's lesions into another patient's tissue.

    The lesions get soft edges and a texture, FLAIR brighter and T1w darker. The host's own
    lesions, with a margin, do not count.

    Parameters
    ----------
    host : Case
    mask : (X, Y, Z) bool array
        On the host's grid.
    contrast : float
        See `CONTRASTS`.
    name : str
    seed : int
        Of the texture.
    """
    rng, tissue = np.random.default_rng(seed), host.tissue
    own = ndimage.binary_dilation(host.lesion, iterations=HOST_MARGIN)
    lesion = mask & tissue.mask & ~own
    texture = ndimage.gaussian_filter(host.grid.backward(rng.standard_normal(host.grid.shape)), 1.0)
    profile = ndimage.gaussian_filter(lesion.astype(np.float32), EDGE_VOXELS)
    profile = profile * (1 + 0.2 * texture / texture.std()) * tissue.mask
    level = float(np.percentile(tissue.flair_z[tissue.likely_grey & tissue.mask & ~own], 99))
    imprinted = replace(
        tissue,
        flair_z=(tissue.flair_z + contrast * level * profile).astype(np.float32),
        t1w_z=(tissue.t1w_z - T1W_SHARE * contrast * level * profile).astype(np.float32),
    )
    return replace(
        host, name=name, kind="imprinted", tissue=imprinted, lesion=lesion, inside=host.inside & ~own
    )


def choose_lesions(
    mask: NDArray[np.bool_], affine: NDArray[np.float64], target_ml: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Whole lesions of a mask, in random order, until their volume reaches the target."""
    labels = label_lesions(mask, affine)
    sizes = np.bincount(labels.ravel())[1:] * abs(np.linalg.det(affine[:3, :3])) / 1000
    chosen, total = [], 0.0
    for lesion in rng.permutation(len(sizes)):
        if total + sizes[lesion] <= 1.2 * target_ml:
            chosen.append(lesion + 1)
            total += sizes[lesion]
    return np.isin(labels, chosen)


def imprinted_cases(hosts: list[Case], masks: Path, per_band: int, seed: int) -> Iterator[Case]:
    """Real masks on real tissue: `per_band` scans in every band of load."""
    files = sorted(masks.glob("*_label-lesion_mask.nii.gz"))
    volumes = {path: np.asanyarray(nib.load(path).dataobj) > 0 for path in files}
    most = max(int(volume.sum()) for volume in volumes.values()) / 1000
    rng = np.random.default_rng(seed)
    for low, high in BANDS_ML:
        for k in range(per_band):
            host = hosts[k % len(hosts)]
            target = float(np.exp(rng.uniform(np.log(1.2 * low), np.log(min(high / 1.3, most)))))
            heavy = [path for path in files if volumes[path].sum() / 1000 >= target]
            path = heavy[rng.integers(len(heavy))]
            grid = WorkingGrid.from_affine(volumes[path].shape, nib.load(path).affine)
            mask = choose_lesions(grid.forward(volumes[path], order=0), grid.affine, target, rng)
            contrast = CONTRASTS[k % len(CONTRASTS)]
            name = f"{path.name.split('_')[0]}-on-{host.name}-x{contrast:g}"
            yield imprint(host, host.grid.backward(mask, order=0), contrast, name, seed=seed + k)
