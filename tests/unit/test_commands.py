"""Every command of README and docs is run by a test, or read by the program's own parser; one that nobody knows fails."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.phantom import dataset

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROUTES = "\n".join(path.read_text() for path in sorted((ROOT / "tests").glob("[ch]*/*.py")))
RUN_BY_TESTS = [
    *(
        (page, words)
        for page, _, words in re.findall(r'documented\(\s*"([\w.]+)",\s*f?(["\'])(.+?)\2', ROUTES)
    ),
    # tests/hpc gives these to a function of its own
    *(
        ("slurm.md", words)
        for _, words in re.findall(r"_submit\(cluster, \w+, ([\"'])(.+?)(?:\\n)?\1,", ROUTES)
    ),
]
"""Page and words of the block that a test of the containers and clusters runs as it stands."""
DONE_ELSEWHERE = {
    "python3.11 -m venv .venv": ("Makefile", "$(PYTHON) -m venv $(VENV)"),
    ". .venv/bin/activate": ("Makefile", "BIN := $(VENV)/bin"),
    "pip install torch --index-url https://download.pytorch.org/whl/cpu": (
        "Makefile",
        "install --quiet --disable-pip-version-check $(TORCH)",
    ),
    "pip install .": ("container/install.sh", '$pip install --no-deps "$source"'),
    "pip install .[docs]": ("Makefile", "--editable '.[test,docs]'"),
    "pip install .[test]": ("Makefile", "--editable '.[test,docs]'"),
    "docker build --tag bids/bids-wmh-uad:0.1.0 .": (
        "tests/container/build.sh",
        "--tag bids/bids-wmh-uad:0.1.0 .",
    ),
    "apptainer build bids-wmh-uad.sif Singularity.def": ("tests/container/build.sh", 'bin/apptainer" build'),
    "apptainer build bids-wmh-uad.sif docker-daemon:bids/bids-wmh-uad:0.1.0": (
        "tests/container/build.sh",
        'bin/apptainer" build',
    ),
    "apptainer test bids-wmh-uad.sif": ("tests/container/test_sif.py", '"apptainer", "test", sif'),
    "apptainer run-help bids-wmh-uad.sif": ("tests/container/test_sif.py", '"run-help", sif'),
    "docker stop": ("tests/unit/cli/test_signals.py", "SIGTERM"),
    "BIDS_DIR=$BIDS_DIR OUTPUT_DIR=$OUTPUT_DIR IMAGE=$PWD/bids-wmh-uad.sif sbatch examples/slurm/group.sbatch": (
        "examples/slurm/submit.sh",
        "group.sbatch",
    ),
    "git tag -a v0.1.0 -m bids-wmh-uad 0.1.0": ("tests/release/test_release.py", '("tag", f"v{TAG}")'),
    "export MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)": (
        "bids_wmh_uad/errors.py",
        "export MASTER_ADDR=$(scontrol show hostnames",
    ),
}
"""Commands of other programs, and the file whose tests or rules do the same with other addresses and names."""
PROGRAM = re.compile(
    r"(?:srun |torchrun .*? -m )?(?:bids-wmh-uad|python -m bids_wmh_uad|bids_wmh_uad)(?: |$)"
    r"|(?:docker|apptainer) run .*?(?:bids/bids-wmh-uad:[\w.]+|bids-wmh-uad\.sif) "
)
"""How a command of the program begins; what follows is for its parser."""


@dataclass(frozen=True)
class Command:
    """One line of a page."""

    page: str
    block: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text[:60]}"


def lines_of(block: str) -> list[str]:
    """A block's commands, continued lines joined, comments gone."""
    joined = block.replace("\\\n", " ")
    words = (shlex.split(line, comments=True) for line in joined.splitlines())
    return [" ".join(line) for line in words if line]


def commands() -> list[Command]:
    """Those of the blocks, and those that stand in a sentence as code."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        found += [Command(page.name, block, line) for block in blocks for line in lines_of(block)]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        spans = re.findall(
            r"`((?:python|pip|make|docker|apptainer|bids-wmh-uad|bosh|sbatch) [^`\n]+)`", prose
        )
        found += [Command(page.name, "", " ".join(shlex.split(span))) for span in spans if "..." not in span]
    return list(dict.fromkeys(found))


def read_by_the_parser(arguments: str) -> bool:
    """Whether the program takes these arguments; a page's placeholder of the level is one of them."""
    words = arguments.replace("{participant,group,train} [options]", "participant").split()
    if words not in (["--version"], ["--help"], []):
        parse_args(words)
    return True


def made_by_make(text: str) -> bool:
    """Whether make has the target, and a variable that is set there."""
    makefile = (ROOT / "Makefile").read_text()
    target, *variables = text.split()[1:]
    names = [variable.partition("=")[0] for variable in variables]
    return bool(re.search(rf"^{target}:", makefile, re.MULTILINE)) and all(
        re.search(rf"^{name} \?=", makefile, re.MULTILINE) for name in names
    )


def a_file_with_these_options(text: str) -> bool:
    """Whether ``python FILE --option`` is a file of the repository that names the option."""
    file, *rest = text.split()[1:]
    source = (ROOT / file).read_text()
    return all(word in source for word in rest if word.startswith("--"))


def is_known(command: Command) -> bool:
    text = command.text
    if any(page == command.page and words in command.block for page, words in RUN_BY_TESTS):
        ran = True
    elif text in DONE_ELSEWHERE:
        file, words = DONE_ELSEWHERE[text]
        ran = words in (ROOT / file).read_text()
    elif text.startswith("python -m bids_wmh_uad.phantom "):
        dataset.build_parser().parse_args(text.split()[3:])
        ran = True
    elif found := PROGRAM.match(text):
        ran = read_by_the_parser(text[found.end() :])
    elif text.startswith("make "):
        ran = made_by_make(text)
    elif text.startswith("python -m "):
        ran = find_spec(text.split()[2]) is not None
    elif text.startswith("python "):
        ran = a_file_with_these_options(text)
    else:
        ran = False
    return ran


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_of_a_page_is_run_or_read(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "tests")])
    for name in ("OUT", "OUT1", "my-model", "MODEL", "examples"):
        Path(name).symlink_to(ROOT / name) if (ROOT / name).exists() else Path(name).mkdir()
    assert is_known(command)


def test_pages_have_commands() -> None:
    assert len(commands()) > 50
    assert len({(page, words) for page, words in RUN_BY_TESTS}) > 8


@pytest.mark.parametrize(
    "text",
    ["bids-wmh-uad IN OUT participant --no-such-option", "make nothing", "make test NOTHING=1", "curl example.org",
     "docker run --rm bids/bids-wmh-uad:0.1.0 /data /out no-level", "python benchmarks/nothing.py",
     "python benchmarks/memory.py --nothing", "python -m bids_wmh_uad.phantom out --nothing", "python -m no_such_module"],
)  # fmt: skip
def test_a_command_that_does_not_work_is_noticed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        known = is_known(Command("README.md", "", text))
    except (Exception, SystemExit):  # a parser refuses, a file is not there
        known = False
    assert not known


def test_the_readme_has_its_order_and_the_measured_rows() -> None:
    readme, method = (ROOT / "README.md").read_text(), (ROOT / "docs/method.md").read_text()
    headings = re.findall(r"^## (.+)$", readme, re.MULTILINE)
    order = [
        "Honest limits",
        "Two commands to start with",
        "On your own data",
        "Run time and memory",
        "Routes",
        "How to cite",
    ]
    assert [heading for heading in headings if heading in order] == order
    assert readme.index("docs/_static/lesions.jpg") < readme.index("## Honest limits")
    rows = [
        line
        for line in readme[readme.index("## Honest") : readme.index("## Two")].splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) > 4
    assert set(rows) <= set(method.splitlines())
