"""What others get: wheel and sdist, built from a tag, installed and run outside the repository without a network.

`make test-release`; with ``RELEASE=full`` also in new environments that pip fills, on each Python and with the lowest versions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TAG = "9.8.7"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FULL = os.environ.get("RELEASE") == "full"
OFFLINE = ("unshare", "--net") if os.geteuid() == 0 and shutil.which("unshare") else ()
"""Without root the network stays on: the container tests are without one in any case."""


def run(*command: object, **options: object) -> str:
    """Standard output of a command that succeeds."""
    ran = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, **options
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


def tracked(directory: Path) -> list[str]:
    return run("git", "ls-files", cwd=directory).split("\n")[:-1]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree's tracked files, committed and tagged in a repository of their own."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository: versions come from its tags")
    copy = tmp_path_factory.mktemp("source")
    for name in tracked(ROOT):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all"), ("tag", f"v{TAG}")):
        run(*git, *command, cwd=copy)
    return copy


@pytest.fixture(scope="session")
def dist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sdist is, and the wheel that was made from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Metadata:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"bids_wmh_uad-{TAG}.dist-info/METADATA")
    return Metadata.from_email(text, validate=True)


def test_a_tag_is_the_version(dist: Path) -> None:
    names = {path.name for path in dist.iterdir()}
    assert names == {f"bids_wmh_uad-{TAG}-py3-none-any.whl", f"bids_wmh_uad-{TAG}.tar.gz"}


def test_docs_and_new_models_say_the_same_version(source: Path) -> None:
    run(
        sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--hooks-only", cwd=source
    )  # make version
    environment = {**os.environ, "PYTHONPATH": str(source)}
    docs = "import runpy; print(runpy.run_path('docs/conf.py')['release'])"
    model = "from bids_wmh_uad.models import _versions; print(_versions()['bids-wmh-uad'])"
    for text in (docs, model):
        assert run(sys.executable, "-c", text, cwd=source, env=environment) == f"{TAG}\n"


def test_without_git_the_version_says_so(source: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(source, tree, ignore=shutil.ignore_patterns(".git"))
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, tree)
    (wheel,) = tmp_path.glob("*.whl")
    version = Version(wheel.name.split("-")[1])
    assert version.is_devrelease  # never mistaken for a release


def test_the_wheel_holds_the_package_and_nothing_else(source: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {name for name in tracked(source) if name.startswith("bids_wmh_uad/")}
    assert names == package | {"bids_wmh_uad/_version.py"}


def test_the_sdist_holds_what_is_tracked_and_nothing_else(source: Path, dist: Path) -> None:
    with tarfile.open(dist / f"bids_wmh_uad-{TAG}.tar.gz") as archive:
        names = {member.name.split("/", 1)[1] for member in archive if not member.isdir()}
    assert names == {*tracked(source), "PKG-INFO", "bids_wmh_uad/_version.py"}


def test_the_metadata_say_what_pyproject_says(metadata: Metadata) -> None:
    assert {str(item) for item in metadata.requires_dist if item.marker is None} == set(
        PROJECT["dependencies"]
    )
    assert str(metadata.requires_python) == PROJECT["requires-python"]
    assert metadata.license_expression == PROJECT["license"]
    assert metadata.project_urls == PROJECT["urls"]
    assert metadata.description.splitlines()[0] == (ROOT / "README.md").read_text().splitlines()[0]
    links = re.findall(r"\]\(([^)]+)\)", metadata.description)
    assert links
    assert all(link.startswith("https://") for link in links)  # PyPI's page has no files beside it


def test_python_versions_are_those_that_are_tried() -> None:
    claimed = [found[1] for item in PROJECT["classifiers"] if (found := re.fullmatch(r".*:: (3\.\d+)", item))]
    assert claimed == sorted({python for python, _ in COMBINATIONS}, key=Version)
    assert PROJECT["requires-python"] == f">={claimed[0]}"


def installed_beside(wheel: Path, place: Path) -> Path:
    """A new environment with the wheel; its dependencies are those of the environment that runs the tests."""
    run(sys.executable, "-m", "venv", "--without-pip", place)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        place / "bin/python",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
    )
    # after the wheel on the path; a .pth file there, such as that of an editable install, is not read
    (site / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages"))
    )
    return place / "bin"


def ran_offline(home: Path, *command: object) -> str:
    """Output of a command that sees no network, no repository and nothing of its caller's Python."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "OMP_NUM_THREADS": "1"}
    return run(*OFFLINE, *command, cwd=home, env=environment)


def test_it_runs_outside_the_repository_without_a_network(wheel: Path, tmp_path: Path) -> None:
    bin_ = installed_beside(wheel, tmp_path / "venv")
    home = tmp_path / "home"
    home.mkdir()
    where = "import bids_wmh_uad, bids_wmh_uad.workflows.session; print(bids_wmh_uad.__file__)"
    assert ran_offline(home, bin_ / "python", "-c", where).startswith(str(tmp_path / "venv"))
    assert ran_offline(home, bin_ / "bids-wmh-uad", "--version") == f"bids-wmh-uad {TAG}\n"
    assert "BIDS_DIR" in ran_offline(home, bin_ / "bids-wmh-uad", "--help").upper()
    loads = "from bids_wmh_uad.models import load_model; from deepbet import BrainExtraction; load_model('default'); BrainExtraction(no_gpu=True)"
    ran_offline(home, bin_ / "python", "-c", loads)
    ran_offline(
        home,
        bin_ / "python",
        "-m",
        "bids_wmh_uad.phantom",
        "bids",
        "--n-subjects",
        "1",
        "--n-controls",
        "0",
        "--seed",
        "1",
    )
    said = ran_offline(home, bin_ / "bids-wmh-uad", "bids", "out", "participant", "--dry-run")
    assert "1 sessions would be processed" in said


DETECT = """\
import bids_wmh_uad
from bids_wmh_uad import detect, evaluate
from bids_wmh_uad.phantom import PhantomSpec, make_subject

phantom = make_subject(PhantomSpec(seed=1, head=False, flair_zooms=(2.5, 2.5, 6), t1w_zooms=(3, 3, 3)))
found = detect(phantom.flair, phantom.t1w)
assert found.mask.shape == phantom.flair.shape
assert len(found.lesions) == found.summary["lesion_count"]
assert found.summary["model"]["name"] == "default"
print(bids_wmh_uad.__file__, found.summary["versions"]["bids-wmh-uad"], evaluate(phantom.lesions, found.mask)["dice"])
"""
"""A tiny phantom through the whole chain, with the model that the wheel ships."""


def test_detect_runs_outside_the_repository_without_a_network(wheel: Path, tmp_path: Path) -> None:
    bin_ = installed_beside(wheel, tmp_path / "venv")
    home = tmp_path / "home"
    home.mkdir()
    where, version, dice = ran_offline(home, bin_ / "python", "-c", DETECT).split()[-3:]
    assert where.startswith(str(tmp_path / "venv"))
    assert version == TAG
    assert float(dice) > 0.3
    assert list(home.glob("bids-wmh-uad-*")) == []  # it leaves nothing behind


COMBINATIONS = [("3.11", "highest"), ("3.11", "lowest-direct"), ("3.12", "highest"), ("3.13", "highest")]
"""Pythons, and which versions of the dependencies uv takes: the newest, or the lowest that pyproject.toml allows."""


def filled_by_uv(wheel: Path, place: Path, python: str, resolution: str) -> Path:
    """A new environment with the wheel and all that it asks for."""
    uv = Path(sys.executable).parent / "uv"
    found = subprocess.run(
        [uv, "python", "find", "--no-python-downloads", python], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"no Python {python} on this machine")
    run(uv, "venv", "--quiet", "--python", found.stdout.strip(), place)
    run(uv, "pip", "install", "--quiet", "--python", place / "bin/python", "--resolution", resolution, wheel)
    return place / "bin"


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="gigabytes of packages: make test-release RELEASE=full")
@pytest.mark.parametrize(("python", "resolution"), COMBINATIONS)
def test_the_demo_runs_in_a_new_environment(
    wheel: Path, tmp_path: Path, python: str, resolution: str
) -> None:
    bin_ = filled_by_uv(wheel, tmp_path / "venv", python, resolution)
    home = tmp_path / "home"
    home.mkdir()
    ran_offline(
        home,
        bin_ / "python",
        "-m",
        "bids_wmh_uad.phantom",
        "bids",
        "--n-subjects",
        "1",
        "--n-controls",
        "0",
        "--seed",
        "1",
    )
    ran_offline(home, bin_ / "bids-wmh-uad", "bids", "out", "participant")
    ran_offline(home, bin_ / "bids-wmh-uad", "bids", "out", "group", "--reference", "bids/derivatives/truth")
    heading, row = (home / "out/group_evaluation.tsv").read_text().splitlines()
    measured = dict(zip(heading.split("\t"), row.split("\t"), strict=True))
    assert float(measured["ap"]) > float(measured["baseline_ap"])  # the first phantom's lesions are easy
