"""The methods text: what was done to a session, for the user's paper."""

from __future__ import annotations

import re

from bids_wmh_uad import __version__

TITLE = """\
# Methods

The text below may be copied into a manuscript. Results were made with *bids-wmh-uad* {version},
a BIDS App [@bidsapps] built on *nipype* [@nipype] and *niworkflows* [@niworkflows].
"""

REFERENCES = {
    "ants": "Avants BB et al. A reproducible evaluation of ANTs similarity metric performance in brain image registration. NeuroImage 2011. doi:10.1016/j.neuroimage.2010.09.025",
    "bidsapps": "Gorgolewski KJ et al. BIDS Apps: Improving ease of use, accessibility, and reproducibility of neuroimaging data analysis methods. PLoS Comput Biol 2017. doi:10.1371/journal.pcbi.1005209",
    "deepbet": "Fisch L et al. deepbet: Fast brain extraction of T1-weighted MRI using convolutional neural networks. Comput Biol Med 2024. doi:10.1016/j.compbiomed.2024.108845",
    "mni": "Fonov VS et al. Unbiased average age-appropriate atlases for pediatric studies. NeuroImage 2011. doi:10.1016/j.neuroimage.2010.07.033",
    "n4": "Tustison NJ et al. N4ITK: Improved N3 Bias Correction. IEEE Trans Med Imaging 2010. doi:10.1109/TMI.2010.2046908",
    "nilearn": "Nilearn contributors. nilearn. doi:10.5281/zenodo.8397156",
    "nipype": "Gorgolewski K et al. Nipype: a flexible, lightweight and extensible neuroimaging data processing framework in Python. Front Neuroinform 2011. doi:10.3389/fninf.2011.00013",
    "niworkflows": "Esteban O et al. niworkflows: NeuroImaging workflows and tools. https://github.com/nipreps/niworkflows",
    "ocsvm": "Schölkopf B et al. Estimating the support of a high-dimensional distribution. Neural Comput 2001. doi:10.1162/089976601750264965",
    "pinon": "Pinon N, Trombetta R, Lartizien C. One-Class SVM on siamese neural network latent space for Unsupervised Anomaly Detection on brain MRI White Matter Hyperintensities. MIDL 2023. arXiv:2304.08058",
}
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
    cited = list(dict.fromkeys(_KEY.findall(text)))
    numbers = {key: number for number, key in enumerate(cited, start=1)}
    body = _KEY.sub(lambda match: str(numbers[match.group(1)]), text)
    references = "\n".join(f"{number}. {REFERENCES[key]}" for key, number in numbers.items())
    return f"{body}\n## References\n\n{references}\n"
