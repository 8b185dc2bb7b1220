"""Whether a change of the code changed the outputs: this tree against a revision, byte for byte.

``python benchmarks/same_outputs.py --against REV`` runs both, one after the other, at the same paths and under the
same version number: the demo phantom (participants, group and evaluation), and, where the real scans are there
(``../shared/data`` beside the repository, or ``BIDS_WMH_UAD_TEST_DATA``), one raw and one template-space participant
with their groups. Then it compares the SHA-256 of every file but those of ``logs/`` and the working directories, and
prints one JSON line: files, how many are the same, which differ (of JSON files the keys), which only one has.

The exit status is 1 if anything differs that no ``--expected`` pattern names; about 6 minutes a revision on two cores,
2 with ``--skip-real``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "bids_wmh_uad"
VERSION = "__version__ = version = '0.0.0'\n__version_tuple__ = version_tuple = (0, 0, 0)\n"
LEFT_OUT = {"logs", "work"}


def extract(revision: str | None, target: Path) -> None:
    """Put the package of a revision, or of the present working tree, into a folder.

    Both get the same version file: the real one names the revision, and every output quotes it.
    """
    if revision is None:
        shutil.copytree(ROOT / PACKAGE, target / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        archive = subprocess.run(
            ["git", "archive", revision, PACKAGE], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as content:
            content.extractall(target, filter="data")
    (target / PACKAGE / "_version.py").write_text(VERSION)


def commands(folder: Path, real: Path | None) -> Iterator[list[str]]:
    """Arguments of ``python -m`` for all runs; their data and outputs lie in `folder`, the real scans elsewhere."""
    bids, demo = str(folder / "demo-bids"), str(folder / "demo")
    yield ["bids_wmh_uad.phantom", bids, "--n-subjects", "2", "--n-controls", "0", "--seed", "1"]
    yield [PACKAGE, bids, demo, "participant"]
    yield [PACKAGE, bids, demo, "group", "--reference", f"{bids}/derivatives/truth"]
    if real is not None:
        raw, mni = str(real / "ms-raw"), str(real / "ms-mni")
        yield [PACKAGE, raw, str(folder / "raw"), "participant", "--participant-label", "lg20"]
        yield [PACKAGE, raw, str(folder / "raw"), "group"]
        yield [PACKAGE, mni, str(folder / "mni"), "participant", "--participant-label", "cs26"]
        yield [PACKAGE, mni, str(folder / "mni"), "group", "--reference", f"{mni}/derivatives/manual"]


def run(revision: str | None, root: Path, real: Path | None) -> Path:
    """Run one revision; the folder of its outputs.

    It works in ``root/run`` and is moved away at the end, so that no path tells the revisions apart.
    """
    name = revision or "this tree"
    folder = root / "run"
    extract(revision, folder / "code")
    environment = os.environ | {"PYTHONPATH": str(folder / "code"), "NO_ET": "1"}
    with (root / "log.txt").open("w+") as log:
        for arguments in commands(folder, real):
            print(f"{name}: {' '.join(arguments)}", file=sys.stderr)
            command = [sys.executable, "-m", *arguments]
            done = subprocess.run(
                command, cwd=folder / "code", env=environment, stdout=log, stderr=log, check=False
            )
            if done.returncode:
                log.seek(0)
                raise SystemExit(f"{name} failed ({done.returncode}):\n{log.read()[-4000:]}")
    shutil.rmtree(folder / "code")
    target = root / ("present" if revision is None else "against")
    return folder.rename(target)


def outputs(folder: Path) -> dict[str, Path]:
    """All files of a finished run that are to be compared, by their path in `folder`."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): folder / path for path in found if not LEFT_OUT & set(path.parts)}


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every number, text and empty container of a JSON value with the way to it: ``a.b[0]``."""
    if isinstance(value, dict) and value:
        yield from chain.from_iterable(
            leaves(item, f"{name}.{key}" if name else key) for key, item in value.items()
        )
    elif isinstance(value, list) and value:
        yield from chain.from_iterable(leaves(item, f"{name}[{number}]") for number, item in enumerate(value))
    else:
        yield name, value


def different_keys(first: Path, second: Path) -> list[str]:
    """Keys of two JSON files that one lacks, or whose values differ."""
    try:
        one, other = (dict(leaves(json.loads(path.read_text()))) for path in (first, second))
    except ValueError as error:
        return [f"not JSON: {error}"]
    missing = object()
    return sorted(
        key
        for key in one.keys() | other.keys()
        if repr(one.get(key, missing)) != repr(other.get(key, missing))  # 1 is not 1.0, and NaN is NaN
    )


def compare(first: Path, second: Path, expected: Sequence[str] = ()) -> tuple[dict[str, object], list[str]]:
    """Compare two folders of outputs.

    Returns
    -------
    dict
        ``files``, ``same``, ``different``, ``different_keys`` and ``only_in_one``.
    list of str
        Files that differ, or that only one has, and that no pattern of `expected` names.
    """
    one, other = outputs(first), outputs(second)
    both = sorted(one.keys() & other.keys())
    different = [name for name in both if digest(one[name]) != digest(other[name])]
    keys = {name: different_keys(one[name], other[name]) for name in different if name.endswith(".json")}
    lonely = sorted(one.keys() ^ other.keys())
    result = {
        "files": len(one.keys() | other.keys()), "same": len(both) - len(different), "different": different,
        "different_keys": keys, "only_in_one": lonely,
    }  # fmt: skip
    surprises = [
        name for name in different + lonely if not any(fnmatch(name, pattern) for pattern in expected)
    ]
    return result, surprises


def real_scans() -> Path | None:
    """The folder of the real scans, if there is one."""
    path = Path(os.environ.get("BIDS_WMH_UAD_TEST_DATA") or ROOT.parent / "shared" / "data").resolve()
    return path if path.is_dir() else None


def main() -> int:
    """Run both, compare, print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", required=True, metavar="REV", help="git revision of this repository")
    parser.add_argument("--expected", action="append", default=[], metavar="PATTERN",
                        help="files that may differ, such as 'raw/*.html'; may be given again")  # fmt: skip
    parser.add_argument("--skip-real", action="store_true", help="the phantom only")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave both outputs here, in a new folder")
    options = parser.parse_args()
    real = None if options.skip_real else real_scans()
    with TemporaryDirectory(prefix="wmhsame") as directory:
        root = options.keep.resolve() if options.keep else Path(directory)
        root.mkdir(parents=True, exist_ok=not options.keep)
        folders = [run(revision, root, real) for revision in (options.against, None)]
        result, surprises = compare(*folders, options.expected)
    print(
        json.dumps(
            {"benchmark": "same_outputs", "against": options.against, "real": real is not None, **result}
        )
    )
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
