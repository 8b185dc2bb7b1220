"""Write ``container/requirements.txt``: what the images install, pinned and with hashes.

pip resolves the project together with the images' torch; torch and what only its GPU build
asks for are left out, because the build argument ``TORCH`` chooses them. Run by ``make lock``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHOSEN_BY_TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*|bids-wmh-uad)$")
NOT_IMPORTED = ("customtkinter", "darkdetect")
"""What deepbet's window needs. The program uses its network and weights only (a test imports them without these), and
an image without a display is no place for a window."""
HEADER = """\
# What the container images install beside torch. Made by `make lock`; do not edit by hand.
"""


def torch_of_the_images() -> str:
    """The default of the Dockerfile's build argument ``TORCH``, without the build's name."""
    found = re.search(r"^ARG TORCH=(torch==[\d.]+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("Dockerfile: no line ARG TORCH=torch==...")
    return found[1]


def resolve() -> list[dict[str, str]]:
    """Name, version and SHA-256 of every package pip would install."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", report, ROOT, torch_of_the_images()],
            check=True,
        )  # fmt: skip
        installs = json.loads(report.read_text())["install"]
    return [
        {
            "name": re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(),
            "version": item["metadata"]["version"],
            "sha256": item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", ""),
        }
        for item in installs
    ]


def main() -> None:
    """Write the file."""
    packages = [
        item
        for item in resolve()
        if not CHOSEN_BY_TORCH.match(item["name"]) and item["name"] not in NOT_IMPORTED
    ]
    lines = [
        f"{item['name']}=={item['version']} --hash=sha256:{item['sha256']}\n"
        for item in sorted(packages, key=lambda item: item["name"])
    ]
    (ROOT / "container" / "requirements.txt").write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
