"""Dockerfile, Singularity.def, the pinned versions and the examples fit each other and the program."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.workflows.engine import _read_plugin_file

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RECIPE = (ROOT / "Singularity.def").read_text()
SCRIPTS = [
    ROOT / "main",
    ROOT / "container/install.sh",
    *sorted((ROOT / "examples/slurm").glob("*.s*")),
    *sorted(path for path in (ROOT / "tests/container").iterdir() if path.read_bytes().startswith(b"#!")),
]


def section(name):
    """The lines of one section of Singularity.def."""
    return re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", RECIPE, re.MULTILINE | re.DOTALL)[1]


def docker_pairs(instruction):
    """NAME=VALUE of all ENV or LABEL lines, continued ones included."""
    joined = DOCKERFILE.replace("\\\n", " ")
    lines = re.findall(rf"^{instruction} (.*)$", joined, re.MULTILINE)
    return dict(re.findall(r'([\w.]+)="?((?<=")[^"]*|\S+?)"?(?=\s|$)', " ".join(lines)))


def test_both_start_from_the_same_base():
    base = re.search(r"^ARG BASE_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)[1]
    assert re.search(r"^From: (.+)$", RECIPE, re.MULTILINE)[1] == base
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE_IMAGE}"}


def test_both_have_the_same_build_arguments():
    arguments = dict(re.findall(r"^ARG (\w+)=(.+)$", DOCKERFILE, re.MULTILINE))
    ours = dict(re.findall(r"^ +(\w+)=(.*)$", section("arguments"), re.MULTILINE))
    assert ours == {name: arguments[name] for name in ("TORCH", "TORCH_INDEX", "VERSION")}


def test_both_run_the_same_installation():
    steps = re.findall(r"sh /src/container/install\.sh \w+ /src", DOCKERFILE)
    assert steps == re.findall(r"sh /src/container/install\.sh \w+ /src", section("post"))
    assert len(steps) == 2
    copied = set(re.search(r"^COPY (pyproject.*) /src/$", DOCKERFILE, re.MULTILINE)[1].split())
    assert {line.split()[0] for line in section("files").splitlines() if line.strip()} == copied | {
        "container", "bids_wmh_uad",
    }  # fmt: skip


def test_both_have_the_same_environment_but_for_home():
    ours = dict(re.findall(r"export (\w+)=(\S+)", section("environment")))
    assert {**ours, "HOME": "/tmp"} == docker_pairs("ENV")  # Apptainer brings the user's own home


def test_both_start_the_same_program_and_carry_the_same_labels():
    program = re.search(r'^ENTRYPOINT \["(.+)"\]$', DOCKERFILE, re.MULTILINE)[1]
    assert section("runscript").split() == ["exec", program, '"$@"']
    labels = dict(line.split(maxsplit=1) for line in section("labels").splitlines() if line.strip())
    version = labels.pop("org.opencontainers.image.version")
    assert version == "{{ VERSION }}"
    assert labels.items() <= docker_pairs("LABEL").items()


def test_pinned_versions_cover_what_the_package_requires():
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", (ROOT / "container/requirements.txt").read_text(), re.MULTILINE))  # fmt: skip
    lines = [
        line for line in (ROOT / "container/requirements.txt").read_text().splitlines() if line[0] != "#"
    ]
    assert len(pinned) == len(lines)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in wanted:
        name, _, least = requirement.partition(">=")
        if name == "torch":
            version = re.search(r"^ARG TORCH=torch==([\d.]+)", DOCKERFILE, re.MULTILINE)[1]
        else:
            version = pinned[name]  # "make lock" writes it
        assert numbers(version) >= numbers(least), requirement


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell_that_parses_and_stops_at_errors(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert re.search(r"^set -eu", script.read_text(), re.MULTILINE) or script.read_text().count("\n") < 5


def test_the_plugin_file_is_one_for_use_plugin():
    settings = _read_plugin_file(ROOT / "examples/slurm/plugin.yml")
    assert settings["plugin"] == "SLURM"


def test_the_babs_file_names_options_that_exist(tmp_path):
    settings = yaml.safe_load((ROOT / "examples/babs/bids-wmh-uad.yaml").read_text())
    options = [str(part) for item in settings["bids_app_args"].items() for part in item if part]
    options = ["--participant-label", "sub-01", *(part for part in options if part not in ("$SUBJECT_SELECTION_FLAG", "--participant-label"))]  # fmt: skip
    config = parse_args([str(tmp_path / "in"), str(tmp_path / "out"), "participant", *options])
    assert config.selection.participant_label == ("01",)


def test_brain_extraction_needs_nothing_that_the_images_leave_out():
    left_out = re.search(
        r"^NOT_IMPORTED = (\(.+\))$", (ROOT / "container/lock.py").read_text(), re.MULTILINE
    )[1]
    pinned = (ROOT / "container/requirements.txt").read_text()
    assert not [name for name in ast.literal_eval(left_out) if f"\n{name}==" in pinned]
    absent = f"import sys; sys.modules.update(dict.fromkeys([*{left_out}, 'tkinter']))"
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"{absent}; from deepbet import BrainExtraction; BrainExtraction(no_gpu=True)",
        ],
        check=True,
    )


def test_the_licence_of_every_package_in_the_images_is_told():
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "container/requirements.txt").read_text(), re.MULTILINE)
    told = re.findall(r"^\| ([\w.-]+) \|", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted([*pinned, "torch", "package", "package"])  # make licences


def test_zenodo_says_what_the_citation_file_says():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    same = {"title": "title", "description": "abstract", "license": "license", "keywords": "keywords"}
    assert {key: zenodo[key] for key in same} == {key: citation[name] for key, name in same.items()}
    assert [item["name"] for item in zenodo["creators"]] == [item["name"] for item in citation["authors"]]
    assert [item["identifier"] for item in zenodo["related_identifiers"]] == [
        item["doi"] for item in citation["references"]
    ]


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_pinned_actions_least_rights_and_call_targets_that_exist(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + 40 * "0"))
            called = [
                text
                for line in re.findall(r"^make (.+)$", step.get("run", ""), re.MULTILINE)
                for text in line.split()
            ]
            if "${{" not in step.get("run", ""):
                assert set(called) <= targets
        for line in job.get("strategy", {}).get("matrix", {}).get("target", []):
            assert set(line.split()) <= targets


def test_ci_and_images_have_the_same_torch():
    version = re.search(r"^ARG TORCH=(.+)$", DOCKERFILE, re.MULTILINE)[1]
    assert {yaml.safe_load(path.read_text())["env"]["TORCH"] for path in WORKFLOWS} == {version}


def test_the_issue_form_asks_for_what_a_crash_tells():
    from bids_wmh_uad.errors import SESSION_CRASHED

    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/crash.yml").read_text())
    asked = {item.get("id") for item in form["body"]}
    assert {"command", "message", "crashfile", "log", "version"} <= asked
    assert SESSION_CRASHED.split(". ")[1].split("{crashfile}")[0] in str(form)
