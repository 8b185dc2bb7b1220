"""The methods text: what was done to a session, for the user's paper, with its references.

It is made of what the graph says of itself, in a small Markdown: paragraphs, ``*emphasis*``, and citations as
``[@key; @key; a note]``. `METHODS_FILES` is written from it, each in the form that one editor or another wants.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING

from bids_wmh_uad import __version__
from bids_wmh_uad.config import TEMPLATE, Method

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TITLE = """\
Results were made with *bids-wmh-uad* {version},
a BIDS App [@bidsapps] built on *nipype* [@nipype] and *niworkflows* [@niworkflows].
"""
"""Head of the methods text."""
HEADING, NOTE, REFERENCES_HEADING = (
    "Methods",
    "The text below may be copied into a manuscript; CITATION.bib has its references.",
    "References",
)
"""What stands around the methods text."""


@dataclass(frozen=True)
class Work:
    """A work that a text cites.

    Parameters
    ----------
    author : str
        As BibTeX wants it: names joined by ``and``.
    title : str
    year : int
    venue : str
        Journal or meeting; empty for software.
    doi, url : str
        One of them.
    """

    author: str
    title: str
    year: int
    venue: str = ""
    doi: str = ""
    url: str = ""

    @property
    def text(self) -> str:
        """One line for a list of references."""
        names = self.author.replace(" and others", " et al.").replace(" and ", ", ").strip("{}").rstrip(".")
        place = f" {self.venue} {self.year}." if self.venue else f" {self.year}."
        return f"{names}. {self.title}.{place} {self.address}"

    @property
    def address(self) -> str:
        """Where the work is found."""
        return f"https://doi.org/{self.doi}" if self.doi else self.url

    def bibtex(self, key: str) -> str:
        """Write the BibTeX entry: of software as what every style knows, with an address, for styles leave out its DOI."""
        kind = "article" if self.venue else "misc"
        fields = {
            "author": self.author, "title": f"{{{self.title}}}", "journal": self.venue, "year": str(self.year),
            "doi": self.doi, "url": self.url if self.venue else self.address,
        }  # fmt: skip
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
        return f"@{kind}{{{key},\n{lines}\n}}\n"


REFERENCES = {
    "ants": Work("Avants, B. B. and Tustison, N. J. and Song, G. and others", "A reproducible evaluation of ANTs similarity metric performance in brain image registration", 2011, "NeuroImage", "10.1016/j.neuroimage.2010.09.025"),
    "bidsapps": Work("Gorgolewski, K. J. and others", "BIDS Apps: Improving ease of use, accessibility, and reproducibility of neuroimaging data analysis methods", 2017, "PLoS Computational Biology", "10.1371/journal.pcbi.1005209"),
    "decarli": Work("DeCarli, C. and Fletcher, E. and Ramey, V. and Harvey, D. and Jagust, W. J.", "Anatomical mapping of white matter hyperintensities (WMH): exploring the relationships between periventricular WMH, deep WMH, and total WMH burden", 2005, "Stroke", "10.1161/01.STR.0000150668.58689.f2"),
    "deepbet": Work("Fisch, L. and Zumdick, S. and Barkhau, C. and others", "deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural networks", 2024, "Computers in Biology and Medicine", "10.1016/j.compbiomed.2024.108845"),
    "mni": Work("Fonov, V. and Evans, A. C. and Botteron, K. and others", "Unbiased average age-appropriate atlases for pediatric studies", 2011, "NeuroImage", "10.1016/j.neuroimage.2010.07.033"),
    "n4": Work("Tustison, N. J. and Avants, B. B. and Cook, P. A. and others", "N4ITK: Improved N3 Bias Correction", 2010, "IEEE Transactions on Medical Imaging", "10.1109/TMI.2010.2046908"),
    "nilearn": Work("{Nilearn contributors}", "nilearn", 2023, doi="10.5281/zenodo.8397156"),
    "nipype": Work("Gorgolewski, K. and Burns, C. D. and Madison, C. and others", "Nipype: a flexible, lightweight and extensible neuroimaging data processing framework in Python", 2011, "Frontiers in Neuroinformatics", "10.3389/fninf.2011.00013"),
    "niworkflows": Work("Esteban, O. and Markiewicz, C. J. and others", "niworkflows: NeuroImaging workflows and tools", 2020, url="https://github.com/nipreps/niworkflows"),
    "ocsvm": Work("Schölkopf, B. and Platt, J. C. and Shawe-Taylor, J. and Smola, A. J. and Williamson, R. C.", "Estimating the support of a high-dimensional distribution", 2001, "Neural Computation", "10.1162/089976601750264965"),
    "pinon": Work("Pinon, N. and Trombetta, R. and Lartizien, C.", "One-Class SVM on siamese neural network latent space for Unsupervised Anomaly Detection on brain MRI White Matter Hyperintensities", 2023, "Medical Imaging with Deep Learning", url="https://arxiv.org/abs/2304.08058"),
    "seitzman": Work("Seitzman, B. A. and Gratton, C. and Marek, S. and others", "A set of functionally-defined brain regions with improved representation of the subcortex and cerebellum", 2020, "NeuroImage", "10.1016/j.neuroimage.2019.116290"),
}  # fmt: skip
"""The works that the texts cite, by the key after ``@``."""

_CITATION = re.compile(r"@(\w+)")
"""Pattern of a citation; its group is the key."""
_CITED = re.compile(r"\[([^\]\n]*@\w[^\]]*)\]")
"""Pattern of citations in brackets, perhaps with a note."""
_EMPHASIS = re.compile(r"\*([^*]+)\*")
"""Pattern of emphasis."""
_ADDRESS = re.compile(r"https://[^\s<>\"']+")
"""Pattern of an address that becomes a link."""
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
"""What LaTeX reads as a command, and how it is written."""


def methods_text(description: str) -> str:
    """Assemble the methods text and the references it cites, as Markdown.

    Parameters
    ----------
    description : str
        What the graph says of itself (``visit_desc``).

    Raises
    ------
    KeyError
        If the text cites a work that :data:`REFERENCES` does not hold.
    """
    paragraphs = _paragraphs(description)
    numbers = {key: number for number, key in enumerate(cited("\n".join(paragraphs)), start=1)}
    body = [_CITATION.sub(lambda match: str(numbers[match.group(1)]), text) for text in paragraphs]
    references = "\n".join(f"{number}. {REFERENCES[key].text}" for key, number in numbers.items())
    return "\n\n".join([f"# {HEADING}", NOTE, *body, f"## {REFERENCES_HEADING}", references]) + "\n"


def methods_html(markdown: str) -> str:
    """The methods text as an HTML fragment, made of what `methods_text` wrote, or of any other text.

    Parameters
    ----------
    markdown : str
        Everything in it is escaped first, whoever wrote it: only headings, paragraphs, numbered lists, emphasis and links
        are marked up.
    """
    parts = []
    for block in re.split(r"\n\s*\n", markdown.strip()):
        text = _EMPHASIS.sub(r"<em>\1</em>", escape(block.strip()))
        text = _ADDRESS.sub(lambda match: f'<a href="{match[0]}" rel="noreferrer">{match[0]}</a>', text)
        heading = re.fullmatch(r"(#{1,2}) +(.+)", text)
        if heading:
            parts.append(f"<h{len(heading[1]) + 2}>{heading[2]}</h{len(heading[1]) + 2}>")
        elif all(re.match(r"\d+\. ", line) for line in text.split("\n")):
            items = [re.sub(r"^\d+\. ", "", line) for line in text.split("\n")]
            parts.append("<ol>\n" + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ol>")
        else:
            parts.append(f"<p>{text}</p>")
    return "\n".join(parts)


def methods_page(description: str) -> str:
    """The methods text as a page of its own."""
    from bids_wmh_uad.reports.pages import render

    return render("citation.html.j2", {"body": methods_html(methods_text(description)), "title": HEADING})


def methods_latex(description: str) -> str:
    """The methods text as a LaTeX document that takes its references from ``CITATION.bib``.

    Parameters and errors as in `methods_text`.
    """
    paragraphs = _paragraphs(description)
    for key in cited("\n".join(paragraphs)):
        REFERENCES[key]  # or LaTeX would print a question mark
    body = [_latex(text) for text in paragraphs]
    return "\n\n".join([
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n\\usepackage[numbers]{natbib}\n\\usepackage{hyperref}",
        "\\begin{document}", f"\\section*{{{HEADING}}}", *body,
        "\\bibliographystyle{unsrtnat}\n\\bibliography{CITATION}", "\\end{document}",
    ]) + "\n"  # fmt: skip


def _latex(text: str) -> str:
    """A paragraph in LaTeX; what is in brackets beside a citation follows it in parentheses."""
    parts: list[str] = []
    for number, part in enumerate(_CITED.split(text)):
        if number % 2 == 0:
            parts.append(_EMPHASIS.sub(r"\\emph{\1}", _escape_latex(part)))
            continue
        pieces = [piece.strip() for piece in part.split(";")]
        keys = [piece[1:] for piece in pieces if piece.startswith("@")]
        notes = [_escape_latex(piece) for piece in pieces if not piece.startswith("@")]
        parts.append(f"\\cite{{{','.join(keys)}}}" + (f" ({'; '.join(notes)})" if notes else ""))
    return "".join(parts)


def _escape_latex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)


def bibliography(description: str) -> str:
    """BibTeX entries of the works that the methods text of this description cites.

    Parameters and errors as in `methods_text`.
    """
    return "\n".join(REFERENCES[key].bibtex(key) for key in cited("\n".join(_paragraphs(description))))


METHODS_FILES: dict[str, Callable[[str], str]] = {
    "CITATION.md": methods_text,
    "CITATION.html": methods_page,
    "CITATION.tex": methods_latex,
    "CITATION.bib": bibliography,
}
"""Files of the methods text, and what makes each of the graph's description."""


def _paragraphs(description: str) -> list[str]:
    """Paragraphs of the whole text, each on one line."""
    text = TITLE.format(version=__version__) + "\n" + description.strip()
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text) if block.strip()]


def cited(text: str) -> list[str]:
    """Keys of the works that a text cites, in order, each once."""
    return list(dict.fromkeys(_CITATION.findall(text)))


SCORING_TEXT = """
White matter hyperintensities. {network}{score} The score was thresholded without
labels (rule '{threshold}'), and 26-connected components of at least {min_lesion_volume} mm3 were {kept}. Ventricles and cortex were found from the intensities of
both contrasts near where the template has them, and the posterior fossa from a region map derived of the template's tissue
maps and the points of Seitzman et al. [@seitzman]. Lesions within 3 mm of a ventricle are called periventricular, others
within 2 mm of cortex juxtacortical, those mostly below the tentorium infratentorial, and the rest deep; the volume within 10 mm
of the ventricles is given too, for the division is a convention [@decarli].
"""
"""Text on scoring and segmentation, with the method's settings to fill in."""

NETWORK_TEXT = """\
Following Pinon et al. [@pinon], every voxel's 15 x 15 axial patch (1 mm in plane) of
the two contrasts was embedded by a siamese patch auto-encoder. {paradigm} """
"""Text on what scores with a model have in common."""

KEPT_TEXT = "kept"
"""What became of the components where the threshold is taken at its word."""

DECISION_TEXT = """\
judged one by one. Those inside the
filled ventricles were rejected. Each of the others was given a probability of being a lesion by a logistic regression on its highest
score{latents}, its contrast to what lies within {rim:g} mm around it, the shares of white matter and of fluid there, and its share between the ventricles, with weights learnt from
synthetic lesions and the share of lesions among the scan's own candidates, estimated by expectation maximisation; those of a probability of at least {accept:g} were taken for lesions"""
"""What became of them where they are candidates."""

LATENTS_TEXT = ", the latents of its brightest voxels"
"""What the decision also looks at, if the model has a direction of lesions in its latent space."""

PARADIGM_TEXTS = {
    "patient": (
        "One-Class SVMs [@ocsvm] with a radial basis function kernel (nu {nu}, gamma {gamma}), each trained on"
        " {n_samples} of the same patient's patches, scored in its latent space how unusual a voxel is."
    ),
    "pooled": (
        "A One-Class SVM [@ocsvm] with a radial basis function kernel (nu {nu}, gamma {gamma}), trained on"
        " {latents} patches of {controls} controls, scored in its latent space how unusual a voxel is."
    ),
    "voxel": (
        "One-Class SVMs [@ocsvm] with a radial basis function kernel (nu {nu}, gamma {gamma}), one for each voxel of"
        " a {step_mm} mm grid in the template's space and trained on the patches of {controls} controls there, scored"
        " in its latent space how unusual a voxel is."
    ),
}
"""Texts on the One-Class SVM, by paradigm."""

SCORE_TEXTS = {
    "directed": (
        "A voxel's score is how bright"
        " its FLAIR is, against white matter and against the brain's tissue of the same T1w, there and around it, with"
        " less weight at the brain's rim, weighted by how much of"
        " its patch's surprise goes away when FLAIR is cut where it is brighter than usual."
    ),
    "brightness": (
        "A voxel's score is how bright"
        " its FLAIR is, against white matter and against the brain's tissue of the same T1w, there and around it, with"
        " less weight at the brain's rim; no trained model has a part in it."
    ),
    "latent": (
        "A voxel's score is how much of its patch's surprise goes away when FLAIR is cut where it is brighter than usual"
        " for the brain's tissue of the same T1w, there and around it."
    ),
    "faithful": "A voxel's score is minus the mean decision function.",
}
"""Texts on the score, by its name."""

TRIMMED_TEXT = " The brightest {percent:g} % of the brain's FLAIR were left out of the training sample."
"""Text on the training sample of the *directed* and *latent* scores in the *patient* paradigm."""


SPACES_TEXT = """
Probability and mask were also brought to the grid of {spaces}, each in one resampling from the FLAIR image's grid: linear, and by nearest neighbour.
"""
"""Text on other spaces."""

NAMES_OF_SPACES = {"T1w": "the T1w image", TEMPLATE: "the template"}


def describe_method(method: Method, spaces: Sequence[str] = ()) -> str:
    """The methods text of scoring and segmentation, and of the spaces other than the FLAIR's."""
    network = _network_text(method) if method.parameters.uses_network else ""
    filled = {"network": network, "score": SCORE_TEXTS[method.score], "kept": _kept_text(method)}
    names = " and ".join(NAMES_OF_SPACES[space] for space in spaces)
    moved = SPACES_TEXT.format(spaces=names) if spaces else ""
    return SCORING_TEXT.format(**{**asdict(method), **filled}) + moved


def _kept_text(method: Method) -> str:
    """What became of what the threshold left."""
    from bids_wmh_uad.core.lesion.candidates import RIM_MM
    from bids_wmh_uad.models import load_decision

    if not method.parameters.decides:
        return KEPT_TEXT
    looks_at_latents = method.parameters.uses_network and load_decision(method.model).latent
    latents = LATENTS_TEXT if looks_at_latents else ""
    return DECISION_TEXT.format(latents=latents, rim=RIM_MM, accept=method.accept)


def _network_text(method: Method) -> str:
    """What the encoder and the One-Class SVMs did."""
    from bids_wmh_uad.models import about_one_class

    settings = {**asdict(method), **about_one_class(method.model, method.paradigm)}
    paradigm = PARADIGM_TEXTS[method.paradigm].format(**settings)
    if method.paradigm == "patient" and method.score != "faithful":
        paradigm += TRIMMED_TEXT.format(percent=100 * method.parameters.trim)
    return NETWORK_TEXT.format(paradigm=paradigm)
