"""Pictures for ``reports.md`` from the demo's output (``make gallery``): the phantom's figures, small.

They are rendered by headless Chromium; without one they stay as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

WIDTH = 900
FIGURES = ("lesions", "anomaly", "histogram", "patches", "latents", "brain")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main(output: Path, target: Path) -> int:
    """Render the figures of the first participant."""
    figures = sorted((output / "sub-01" / "figures").glob("*.svg"))
    found = {name: next(path for path in figures if f"_desc-{name}_" in path.name) for name in FIGURES}
    target.mkdir(parents=True, exist_ok=True)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.stderr.write("No Chromium: the pictures are left as they are.\n")
        return 1
    for name in FIGURES:
        render(browser, found[name], target / f"{name}.jpg")
    return 0


def render(browser: str, figure: Path, picture: Path) -> None:
    """Render one SVG as a JPEG of `WIDTH` pixels."""
    from PIL import Image

    text = figure.read_text(encoding="utf-8")
    _, _, across, down = text.split('viewBox="')[1].split('"')[0].split()
    height = round(WIDTH * float(down) / float(across))
    with TemporaryDirectory(prefix="wmhgallery") as directory:
        page, shot = Path(directory) / "page.html", Path(directory) / "shot.png"
        page.write_text(f"<body style='margin:0'>{text[text.index('<svg') :]}", encoding="utf-8")
        subprocess.run(  # noqa: S603 (our own figure, and a browser found by name)
            [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={shot}", "--hide-scrollbars",
             f"--user-data-dir={directory}/profile", f"--window-size={WIDTH},{height}", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        Image.open(shot).convert("RGB").save(picture, "JPEG", quality=55, optimize=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
