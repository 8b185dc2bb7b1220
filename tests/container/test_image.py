"""The OCI image: as any user, on a read-only root, without network and capabilities; the same bytes as natively."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from container.fixtures import ROOT, differences, documented, run

from bids_wmh_uad import __version__

MAX_BYTES = 2.5e9


def podman(bids_dir: Path, out: Path, level: str, user: str, *extra: str, code: int = 0) -> str:
    """Run what docs/docker.md says for a level, as another user than the tests' own."""
    command = documented("docker.md", f"/out {level}", nobody=f'"$(id -u):$(id -g)"=>{user}')
    command[-1] = command[-1].rstrip() + " " + " ".join(extra)
    work = out.with_name(f"{out.name}-work")
    work.mkdir(exist_ok=True)
    run("chown", user, work)
    return run(
        *command, code=code, variables={"BIDS_DIR": bids_dir, "OUTPUT_DIR": out, "WORK_DIR": work}
    ).stdout


@pytest.fixture(scope="module")
def out(share: Path, image: str, bids_dir: Path) -> Path:
    """Participant 01, by a user whom the image does not know."""
    path = share / "oci"
    path.mkdir()
    path.chmod(0o777)
    podman(bids_dir, path, "participant", "1000:1000")
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


@pytest.fixture(scope="module")
def cohort(share: Path, bids_dir: Path, out: Path) -> Path:
    """The group level, by another user whom the image does not know either."""
    path = share / "oci-group"
    shutil.copytree(out, path)
    run("chown", "-R", "4321:4321", path)
    podman(bids_dir, path, "group", "4321:4321")
    return path


def test_the_group_level_runs_for_another_user(cohort: Path) -> None:
    assert (cohort / "group_wmh.tsv").read_text().splitlines()[1].startswith("sub-01\tn/a\tdone")


def test_the_derivatives_are_valid_bids(cohort: Path) -> None:
    validator = Path(sys.executable).parent / "bids-validator-deno"
    run(validator, "--ignoreWarnings", cohort)


def test_errors_keep_their_codes(bids_dir: Path, out: Path) -> None:
    assert "--what" in podman(bids_dir, out, "participant", "1000:1000", "--what", code=64)
    assert "Participants there: 01, 02" in podman(
        bids_dir, out, "participant", "1000:1000", "--participant-label", "sub-99", code=18
    )


def test_a_datalad_tree_is_read_from_its_mounted_root(image: str, bids_dir: Path, share: Path) -> None:
    tree, objects = share / "openneuro", share / "openneuro" / ".git" / "annex" / "objects"
    shutil.copytree(bids_dir, tree)
    objects.mkdir(parents=True)
    for path in list(tree.rglob("*.nii.gz")):
        path.rename(objects / path.name)
        path.symlink_to(Path("../../.git/annex/objects") / path.name)
    (objects / "sub-02_FLAIR.nii.gz").unlink()
    command = documented("openneuro.md", "--dry-run")
    said = run(*command, code=1, cwd=tree, variables={"OUTPUT_DIR": share}).stdout
    assert "3 sessions would be processed, 1 cannot be." in said
    assert "'datalad get sub-02/anat/sub-02_FLAIR.nii.gz'" in said
