"""The OCI image: as any user, on a read-only root, without network and capabilities; the same bytes as natively."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from container.fixtures import ROOT, differences, run

from bids_wmh_uad import __version__

MAX_BYTES = 2.5e9
LOCKED_DOWN = ("--rm", "--read-only", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""As docs/docker.md has it."""


def podman(image: str, bids_dir: Path, out: Path, *arguments: str, user: str, code: int = 0) -> str:
    """Run the image on a dataset that cannot be written."""
    ran = run(
        "podman", "run", *LOCKED_DOWN, "--tmpfs", "/tmp", "--user", user,
        "--volume", f"{bids_dir}:/data:ro", "--volume", f"{out}:/out", image, *arguments, code=code,
    )  # fmt: skip
    return ran.stdout


@pytest.fixture(scope="module")
def out(share: Path, image: str, bids_dir: Path) -> Path:
    """Participant 01 and the group, by a user whom the image does not know."""
    path = share / "oci"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    podman(image, bids_dir, path, "/data", "/out", "participant", "--participant-label", "01", user="1000:1000")
    return path


def test_the_dockerfile_has_nothing_that_hadolint_minds(tools: Path) -> None:
    run(tools / "hadolint", ROOT / "Dockerfile")


def test_the_image_is_small_and_labelled(image: str) -> None:
    (about,) = json.loads(run("podman", "image", "inspect", image).stdout)
    assert about["Size"] < MAX_BYTES
    labels = about["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert run("podman", "run", "--rm", image, "--version").stdout.split()[-1] == __version__


def test_a_participant_is_done_without_rights_and_equals_the_native_run(out: Path, native: Path) -> None:
    assert differences(native, out, "01") == []
    assert (out / "sub-01.html").is_file()


def test_the_group_level_runs_for_a_user_without_a_name(out: Path, image: str, bids_dir: Path, share: Path) -> None:
    run("chown", "-R", "4321:4321", out)
    podman(image, bids_dir, out, "/data", "/out", "group", user="4321:4321")
    assert (out / "group_wmh.tsv").read_text().splitlines()[1].startswith("sub-01\tn/a\tdone")


def test_the_derivatives_are_valid_bids(out: Path) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    run(validator, "--ignoreWarnings", out)


def test_errors_keep_their_codes(image: str, bids_dir: Path, share: Path) -> None:
    nowhere = share / "unused"
    nowhere.mkdir(exist_ok=True)
    assert "no such directory" in podman(image, bids_dir, nowhere, "/none", "/out", "participant", user="0", code=66)
    assert "--help" in podman(image, bids_dir, nowhere, "/data", "/out", "participant", "--what", user="0", code=64)
