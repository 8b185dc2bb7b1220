"""The methods text: what was done to a session, for the user's paper, with its references."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bids_wmh_uad import __version__

TITLE = """\
# Methods

The text below may be copied into a manuscript; `CITATION.bib` has its references. Results were made with *bids-wmh-uad* {version},
a BIDS App [@bidsapps] built on *nipype* [@nipype] and *niworkflows* [@niworkflows].
"""


@dataclass(frozen=True)
class Work:
    """A work that a text cites.

    Parameters
    ----------
    author : str
        As BibTeX wants it: names joined by ``and``.
    title, where : str
        ``where`` is the journal or meeting; empty for software.
    year : int
    doi, url : str
        One of them.
    """

    author: str
    title: str
    year: int
    where: str = ""
    doi: str = ""
    url: str = ""

    @property
    def text(self) -> str:
        """One line for a list of references."""
        names = self.author.replace(" and others", " et al.").replace(" and ", ", ").strip("{}")
        place = f" {self.where} {self.year}." if self.where else f" {self.year}."
        return f"{names}. {self.title}.{place} {f'doi:{self.doi}' if self.doi else self.url}"

    def bibtex(self, key: str) -> str:
        """Write the BibTeX entry."""
        kind = "article" if self.where else "software"
        fields = {
            "author": self.author, "title": f"{{{self.title}}}", "journal": self.where, "year": str(self.year),
            "doi": self.doi, "url": self.url,
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

_KEY = re.compile(r"@(\w+)")


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
    text = TITLE.format(version=__version__) + "\n" + description.strip() + "\n"
    numbers = {key: number for number, key in enumerate(cited(text), start=1)}
    body = _KEY.sub(lambda match: str(numbers[match.group(1)]), text)
    references = "\n".join(f"{number}. {REFERENCES[key].text}" for key, number in numbers.items())
    return f"{body}\n## References\n\n{references}\n"


def bibliography(description: str) -> str:
    """BibTeX entries of the works that the methods text of this description cites.

    Parameters and errors as in `methods_text`.
    """
    return "\n".join(REFERENCES[key].bibtex(key) for key in cited(TITLE + description))


def cited(text: str) -> list[str]:
    """Keys of the works that a text cites, in order, each once."""
    return list(dict.fromkeys(_KEY.findall(text)))
