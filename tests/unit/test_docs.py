"""The documentation says what the code does: options, exit codes, messages, names of outputs, make targets."""

import argparse
import re
from pathlib import Path

import pytest

from bids_wmh_uad import environment, errors
from bids_wmh_uad.bids.status import NOT_UPDATED
from bids_wmh_uad.cli.parser import build_parser, normalise_argv
from bids_wmh_uad.cli.values import PRINTABLE, WHOLE_PATH
from bids_wmh_uad.reports.subject import FIGURE_REFUSED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGES.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FOREIGN_OPTIONS = {
    *("--index-url", "--n-subjects", "--n-controls", "--standalone", "--nproc-per-node"),
    *("--n-sessions", "--unchanged"),
    *("--against", "--table"),
    *("--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--requeue"),
}
"""Options of pip, of ``python -m bids_wmh_uad.phantom``, of torchrun, of benchmarks/ and of sbatch."""
CONTAINER_PAGES = ("README", "reliability", "docker", "apptainer", "slurm", "boutiques", "openneuro")
CONTAINER_OPTIONS = {
    *(
        "--bind",
        "--build-arg",
        "--cap-drop",
        "--cleanenv",
        "--gpus",
        "--ipc",
        "--memory",
        "--network",
        "--no-home",
        "--nv",
    ),
    *("--read-only", "--rm", "--security-opt", "--tag", "--tmpfs", "--user", "--volume"),  # docker, apptainer
    *("--bids", "--no-container", "--no-pull", "--skip-data-collection"),  # bosh
}
"""Options of other programs on those pages: tests/container and tests/hpc run the commands."""


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def code_spans(text):
    return set(re.findall(r"`([^`\n]+)`", text))


def table_cells(text, column=0):
    """Cells of one column of all Markdown tables, headings and rules included."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [row[column].strip() for row in rows if len(row) > column]


def words(value):
    """All keys of nested mappings."""
    return {
        key
        for name, item in value.items()
        for key in ({name} | (words(item) if isinstance(item, dict) else set()))
    }


def known_options():
    return {option for action in build_parser()._actions for option in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_exist(page):
    named = re.findall(r"(?<![\w-])--[a-z][a-z_-]*[a-z]", page.read_text(encoding="utf-8"))
    foreign = FOREIGN_OPTIONS | (CONTAINER_OPTIONS if page.stem in CONTAINER_PAGES else set())
    assert set(normalise_argv(named)) <= known_options() | foreign


def test_usage_names_options_at_all():
    assert "--bids-filter-file" in code_spans(read("docs/usage.md")) & known_options()


def test_usage_is_generated_from_the_parser():
    text = read("docs/usage.md")
    directive = text[text.index(".. argparse::") :]
    assert f":module: {build_parser.__module__}\n" in directive
    assert f":func: {build_parser.__name__}\n" in directive


def test_every_option_is_explained():
    helpless = [
        action.dest
        for action in build_parser()._actions
        if not action.help or action.help == argparse.SUPPRESS
    ]
    assert not helpless


def test_exit_codes_are_those_of_the_table():
    classes = [
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)
    ]
    codes = {item.exit_code for item in classes} | {errors.EXIT_OK, errors.EXIT_SESSION_FAILED}
    text = read("docs/usage.md")
    section = text[text.index("## Exit codes") : text.index("## All options")]
    assert {int(cell) for cell in table_cells(section) if cell.isdigit()} == codes


def test_messages_in_the_faq_are_the_programs():
    named = {**vars(errors), **vars(environment)}
    constants = [value for name, value in named.items() if name.isupper()]
    constants += [FIGURE_REFUSED, NOT_UPDATED, PRINTABLE, WHOLE_PATH]
    messages = [value for value in constants if isinstance(value, str)]
    messages += [value.template for value in constants if isinstance(value, errors.WarningText)]
    text = read("docs/faq.md")
    quoted = [cell.strip("`") for cell in table_cells(text) if cell.startswith("`")]
    assert quoted
    assert [cell for cell in quoted if not any(cell in message for message in messages)] == []
    assert [message for message in messages if not any(cell in message for cell in quoted)] == []


def test_every_output_of_a_session_is_documented():
    from bids_wmh_uad.bids.derivatives import OUTPUTS

    documented = {cell.strip("`") for cell in table_cells(read("docs/outputs.md"))}
    assert set(OUTPUTS.values()) <= documented


def test_every_threshold_rule_and_score_is_documented():
    from bids_wmh_uad.core.parameters import SCORES, DetectionParameters

    text = read("docs/method.md")
    rules = dict(re.findall(r"^\| `(\w+)=\w+` (?:\(.*?([\d.]+)\))?", text, re.MULTILINE))
    assert {
        name: float(value) if value else None for name, value in rules.items()
    } == DetectionParameters().rule_defaults
    assert all(f"**`{score}`**" in text for score in SCORES)


@pytest.fixture
def nipype_offline(monkeypatch):
    monkeypatch.setenv("NO_ET", "1")
    monkeypatch.setenv("NIPYPE_NO_ET", "1")


def test_every_column_of_every_table_is_documented():
    from bids_wmh_uad.bids.tables import TABLE_COLUMNS
    from bids_wmh_uad.group.cohort import WMH_COLUMNS
    from bids_wmh_uad.group.evaluation import EVALUATION_COLUMNS

    text = read("docs/outputs.md")
    sections = {
        "### Lesion table": TABLE_COLUMNS,
        "### group_wmh.tsv": WMH_COLUMNS,
        "### group_evaluation.tsv": EVALUATION_COLUMNS,
    }
    for heading, columns in sections.items():
        section = re.split(
            r"^##", text[text.index(heading) + len(heading) :], maxsplit=1, flags=re.MULTILINE
        )[0]
        documented = {name for cell in table_cells(section) for name in code_spans(cell)}
        assert documented == set(columns), heading


def test_every_key_of_sidecars_and_summary_is_documented(nipype_offline):
    import numpy as np

    from bids_wmh_uad.bids.dataset import Session
    from bids_wmh_uad.bids.sidecars import SIDECAR_KEYS, sidecar_one_class
    from bids_wmh_uad.config import Method
    from bids_wmh_uad.core.lesion.landmarks import Tissue
    from bids_wmh_uad.core.lesion.segmentation import segment
    from bids_wmh_uad.core.parameters import DetectionParameters
    from bids_wmh_uad.interfaces.outputs import sidecars

    score = np.ones((4, 4, 4), np.float32)
    tissue = Tissue(score, score, score > 0, score)
    found = segment(score, tissue, 0 * score.astype(int), np.eye(4), parameters=Method().parameters)
    assert found.measures["threshold"]["name"] == "tail"
    raw = Path("/raw")
    session = Session("1", None, raw / "sub-1/anat/sub-1_FLAIR.nii.gz", raw / "sub-1/anat/sub-1_T1w.nii.gz")
    scaling = {name: {"mode": 1.0, "scale": 1.0} for name in ("flair", "t1w")}
    one_class = sidecar_one_class(Method())
    described = sidecars(session, raw, Method(), "0", one_class, scaling, found.measures, "cpu")
    written = words(found.measures) | words(described) | set(SIDECAR_KEYS.values())
    outputs_by_name = set(described)
    parameters = set(described["anomaly"]["Parameters"])  # their own docstring says what each is
    assert parameters == set(DetectionParameters.__dataclass_fields__)
    assert written - outputs_by_name - parameters <= code_spans(read("docs/outputs.md"))


def test_every_weight_and_reason_of_the_decision_is_documented():
    from bids_wmh_uad.core.lesion.decision import IN_VENTRICLES, REASONS, LesionDecision

    assert set(LesionDecision.__dataclass_fields__) <= code_spans(read("docs/outputs.md"))
    assert {IN_VENTRICLES, *REASONS.values()} <= code_spans(read("docs/faq.md"))
    text = read("docs/method.md")
    section = text[text.index("### Lesions: candidates") : text.index("### Probability")]
    assert set(table_cells(section)) >= set(REASONS)


def test_every_figure_of_the_page_is_documented():
    specification = read("bids_wmh_uad/reports/specs/subject.yml")
    figures = set(re.findall(r"desc: (\w+), suffix: FLAIR, extension: \.svg", specification))
    assert figures
    assert figures <= code_spans(read("docs/outputs.md"))


def make_targets():
    rules = re.findall(r"^([A-Za-z][\w ./-]*?):(?!=)", read("Makefile"), re.MULTILINE)
    return {target for rule in rules for target in rule.split()}


def test_readme_names_the_two_commands():
    assert {"make demo", "make test"} <= code_spans(read("README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_that_a_page_names_exist(page):
    spans = code_spans(page.read_text(encoding="utf-8"))
    named = {match[1] for span in spans if (match := re.match(r"make ([\w-]+)$", span))}
    assert named <= make_targets()


def test_the_first_paragraphs_say_what_the_default_is():
    from bids_wmh_uad.core.parameters import DetectionParameters

    default = f"`--score {DetectionParameters.score}`"
    for page in ("README.md", "docs/method.md"):
        first = read(page).split("\n\n")[1]
        assert default in first, page
        assert "bright FLAIR" in " ".join(first.split()), page


@pytest.mark.parametrize(
    "sentence",
    [
        "as leaves {noise:g} of FLAIR's noise", "but {sigma_mm:g} to {sigma_max_mm:g} mm", "fall into {t1w_bins} bins of T1w",
        "Gaussian neighbourhood of {local_mm:g} mm", "above the default threshold (K = {tail:g}, below)",
        "\\tfrac12 e^{{-(d / {rim_mm:g}\\,\\mathrm{{mm}})^2}}", "(1 - {lost:g}\\, p)", "in a Gaussian of {grey_mm:g} mm",
        "The brightest {trimmed:g} % of the brain", "The factor lies between {floor:g} and {full:g}", "$\\nu = {nu:g}$",
        "each on its own {samples} patches", "| `tail=K` (default, K = {tail:g}) |", "falls below {edge:g} of its median",
        "those below {min_lesion_volume:g} mm3", "$1 / (1 + (T/A)^{steepness:g})$",
        "gaps of up to {gap:g} mm in their fluid", "by a ball of {closing:g} mm", "in a rim of {rim:g} mm around it",
        "in thresholds, at most {highest:g}", "mean over its {top} highest-scoring voxels", "at least {accept:g} (`--accept`) are taken",
        "is at least {lower:g}, and of those where it is at least {upper:g}", "by more than a factor of {unstable_ratio:g} gets",
    ],
)  # fmt: skip
def test_the_method_page_has_the_default_numbers(sentence):
    from dataclasses import asdict

    from bids_wmh_uad.core.lesion.candidates import CLOSING_MM, RIM_MM, TOP_VOXELS
    from bids_wmh_uad.core.lesion.decision import HIGHEST_PEAK
    from bids_wmh_uad.core.lesion.segmentation import INTERVAL
    from bids_wmh_uad.core.parameters import DetectionParameters

    values = asdict(DetectionParameters())
    derived = {
        "gap": 2 * CLOSING_MM, "closing": CLOSING_MM, "rim": RIM_MM, "highest": HIGHEST_PEAK, "top": TOP_VOXELS,
        "lower": INTERVAL[0], "upper": INTERVAL[1],
        "lost": round(1 - values["grey_weight"], 6), "trimmed": 100 * values["trim"], "full": values["floor"] + 1,
        "samples": f"{values['n_samples']:,}",
    }  # fmt: skip
    assert values["rim_weight"] == 0.5  # written as a fraction
    text = " ".join(read("docs/method.md").split())
    assert sentence.format(**values, **derived) in text
