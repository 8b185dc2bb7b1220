"""The lesion decision: its weights, what each piece of evidence is worth, and what the latent space adds.

One JSON line; with ``--table`` readable tables first; with ``--write`` the weights go into the shipped model
(``decision.json``), and those without a network are printed for `LesionDecision`'s defaults.

Candidates come from phantoms (made and preprocessed once into ``build/detection``), whose lesions and normal bright
structures are known, and, where ``../shared/data`` has real scans, from lesion shapes imprinted on real tissue: there the
candidates outside the shapes, and well away from the person's own lesions, are what normal tissue of people offers. No
label of a real lesion goes in but its shape, and that its surroundings are left out. Phantoms and people weigh the same, and so do
lesions and the rest. The weights are those of a logistic regression on standardised evidence; the latents' are held back more (`LATENT_C`), for what
is common to one person's tissue, or to phantoms, is learnt easily and helps nobody else.

Judged leaving one person out (P14, P18, cs26; phantoms always learnt from), on what nobody imprinted: the
candidates of the five real sessions, by their manual masks. Area under the ROC curve, average precision, and precision and recall at 0.5, for

- ``peak`` alone, ``peak`` and white matter around, all evidence without a network;
- the same with the mean latents of a candidate's brightest voxels, by the shipped encoder and by untrained ones;
- ``one_class``: the same with the latents' surprise under a One-Class SVM of normal bright structures in their place.

    python benchmarks/decision.py --table --write
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from detection import DATA, Detection, collect_phantoms, collect_real, remembered_map
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from scans import Case, imprinted_cases
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bids_wmh_uad.core.lesion.candidates import TOP_VOXELS
from bids_wmh_uad.core.lesion.decision import LesionDecision, evidence, evidence_names
from bids_wmh_uad.core.network.autoencoder import SiameseAutoencoder, build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.score.latent import AnomalyMap
from bids_wmh_uad.core.svm.estimator import OneClassSVM
from bids_wmh_uad.models import load_model, model_directory, save_decision

PHANTOMS = {"decision": (6, 4, 101, None), "decision-heavy": (2, 0, 102, 60.0)}
"""Patients, controls, seed and load (mL; None: 1 to 40) of the phantoms that the weights are learnt from."""
IMPRINT_SEED, IMPRINTS_PER_BAND = 1, 5
"""Of the imprinted scans to learn from; those that `detection.py` judges by have another seed."""
LESION_SHARE = 0.2
"""A candidate is a lesion if at least so much of it is one, and is none if nothing is; those between are left out."""
NAMES = evidence_names()
"""The evidence without a network."""
LATENT_C = 0.03
"""Inverse strength of the penalty on the latents' weights; 1 of all others, the standardised evidence's."""
PERSONS = ("P14", "P18", "cs26")
RANDOM_ENCODERS = 3


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of some scans.

    Attributes
    ----------
    group : (n,) str array
        ``phantom``, or the person.
    real : (n,) bool array
        Whether the lesions are a person's own.
    evidence : (n, e) array
        In the order of `NAMES`.
    lesion : (n,) bool array
    latents : dict of str to (n, p, d) array
        Of the brightest voxels, by encoder; NaN where a candidate has fewer.
    """

    group: NDArray[np.str_]
    real: NDArray[np.bool_]
    evidence: NDArray[np.float64]
    lesion: NDArray[np.bool_]
    latents: dict[str, NDArray[np.float32]]

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """All candidates of several sets."""
        fields = ("group", "real", "evidence", "lesion")
        latents = {name: np.concatenate([part.latents[name] for part in parts]) for name in parts[0].latents}
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields), latents)


def encoders(others: Mapping[str, Path]) -> dict[str, SiameseAutoencoder]:
    """The shipped encoder, some that nobody trained, and those of other model directories."""
    random = {f"random {seed}": build_autoencoder(seed).eval() for seed in range(RANDOM_ENCODERS)}
    named = {name: load_model(str(path))[0] for name, path in others.items()}
    return {"shipped": load_model("default")[0], **random, **named}


def candidates_of(case: Case, others: Mapping[str, Path]) -> Candidates:
    """The candidates of a scan by the default score, outside the ventricles: the program's own, on the FLAIR's own grid."""
    torch.set_num_threads(1)
    everything = DetectionParameters(accept=0.0)
    found = remembered_map(case, everything, seed=0)
    scores = case.own(found).scores
    lesions = Detection(scores, everything).segment(case).lesions
    voxels = [np.flatnonzero(lesions.labels == number) for number in range(1, len(lesions.candidates) + 1)]
    share = np.array([case.lesion.flat[own].mean() for own in voxels])
    counted = np.array([case.inside.flat[own].mean() > 0.5 for own in voxels])
    kept = np.flatnonzero(counted & ((share == 0) | (share >= LESION_SHARE)))
    top = [voxels[k][np.argsort(-scores.flat[voxels[k]], kind="stable")[:TOP_VOXELS]] for k in kept]
    group = next((person for person in PERSONS if person in case.name.split("-on-")[-1]), "phantom")
    values = [list(evidence(lesions.candidates[k]).values()) for k in kept]
    return Candidates(
        np.full(kept.size, group),
        np.full(kept.size, case.kind == "real"),
        np.array(values).reshape(kept.size, len(NAMES)),
        share[kept] > 0,
        {name: latents_of(case, found, top, model) for name, model in encoders(others).items()},
    )


def latents_of(
    case: Case, found: AnomalyMap, top: list[NDArray[np.integer]], model: SiameseAutoencoder
) -> NDArray[np.float32]:
    """Latents of some of the FLAIR's voxels of each candidate, as the program's evidence has them; NaN beyond their number.

    They come from the working grid linearly, and what has no score there counts as 0 (`AnomalyMap.from_grid`; without the
    low pass of voxels larger than the working grid's, which these scans do not have).
    """
    own = np.stack(np.unravel_index(np.concatenate([np.zeros(0, int), *top]), case.lesion.shape), axis=1)
    there, last = np.linalg.inv(case.grid.affine) @ case.affine, np.array(case.grid.shape) - 1
    place = np.clip(np.round(own @ there[:3, :3].T + there[:3, 3], 6), 0, last)
    low, image = np.floor(place).astype(np.int64), case.scan.network_input()
    rows = np.zeros((len(own), model.latent_size), dtype=np.float32)
    for corner in np.ndindex(2, 2, 2):
        near = np.minimum(low + corner, last)
        weight = np.where(corner, place - low, 1 - place + low).prod(axis=1) * (
            found.scores[tuple(near.T)] != 0
        )
        some = weight > 0
        rows[some] += weight[some, None] * embed_patches(model, extract_patches(image, near[some]))
    latents = np.full((len(top), TOP_VOXELS, rows.shape[1]), np.nan, dtype=np.float32)
    latents[np.arange(TOP_VOXELS) < np.array([len(part) for part in top], int)[:, None]] = rows
    return latents


def gather(others: Mapping[str, Path] = MappingProxyType({})) -> Candidates:
    """Candidates of phantoms, and of real and imprinted scans where there are any; with the latents of other models, too."""
    cases = collect_phantoms(PHANTOMS)
    real = collect_real()
    if real:
        cases += real
        cases += list(imprinted_cases(real, DATA / "ms-masks-mni", IMPRINTS_PER_BAND, seed=IMPRINT_SEED))
    found = Parallel(n_jobs=cpu_count())(delayed(candidates_of)(case, dict(others)) for case in cases)
    return Candidates.joined(found)


def features(found: Candidates, names: tuple[str, ...], encoder: str | None) -> NDArray[np.float64]:
    """Evidence of some names, and the mean latents by an encoder."""
    columns = [found.evidence[:, [NAMES.index(name) for name in names]]]
    if encoder is not None:
        columns.append(np.nanmean(found.latents[encoder], axis=1))
    return np.concatenate(columns, axis=1)


def fit(
    values: NDArray[np.float64], found: Candidates, learnt: NDArray[np.bool_], latents: int = 0
) -> Pipeline:
    """Logistic regression on the candidates to learn from: phantoms and people, lesions and the rest weigh the same.

    The last so many columns are latents.
    """
    weight = np.zeros(learnt.size)
    for people in (True, False):
        for lesion in (True, False):
            own = learnt & ((found.group != "phantom") == people) & (found.lesion == lesion)
            weight[own] = learnt.sum() / max(1, own.sum())
    scaler = StandardScaler().fit(values[learnt])
    # what is smaller needs larger weights, and these cost more
    scaler.scale_[values.shape[1] - latents :] /= LATENT_C**0.5
    regression = LogisticRegression(max_iter=5000).fit(
        scaler.transform(values[learnt]), found.lesion[learnt], weight[learnt] / weight[learnt].mean()
    )
    return make_pipeline(scaler, regression)


def surprise(found: Candidates, encoder: str, learnt: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean surprise of a candidate's latents under a One-Class SVM of the normal ones learnt from."""
    latents = found.latents[encoder]
    known, normal = ~np.isnan(latents[..., 0]), learnt & ~found.lesion
    scaler = StandardScaler().fit(latents[normal][known[normal]])
    model = OneClassSVM(nu=DetectionParameters.nu, gamma="scale").fit(
        scaler.transform(latents[normal][known[normal]])
    )
    values = np.full(known.shape, np.nan)
    values[known] = -np.log(np.maximum(model.score_samples(scaler.transform(latents[known])), 1e-12))
    return np.nanmean(values, axis=1)


def judged(
    found: Candidates,
    names: tuple[str, ...],
    encoders: str | Mapping[str, str] | None,
    one_class: bool = False,
) -> dict[str, float]:
    """Leave one person out: how well that person's own lesions are told from the rest.

    `encoders`: one for all, or for each person the one that never saw that person.
    """
    probability = np.zeros(found.lesion.size)
    for person in PERSONS:
        learnt, tested = ~found.real & (found.group != person), found.real & (found.group == person)
        encoder = encoders[person] if isinstance(encoders, Mapping) else encoders
        values = features(found, names, None if one_class else encoder)
        latents = values.shape[1] - len(names)
        if one_class and encoder is not None:
            values = np.column_stack([values, surprise(found, encoder, learnt)])
        probability[tested] = fit(values, found, learnt, latents).predict_proba(values[tested])[:, 1]
    lesion, chance = found.lesion[found.real], probability[found.real]
    accepted = chance >= DetectionParameters.accept
    hits = float((accepted & lesion).sum())
    precision, recall = hits / max(1, accepted.sum()), hits / lesion.sum()
    return {
        "auc": float(roc_auc_score(lesion, chance)),
        "ap": float(average_precision_score(lesion, chance)),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
    }


def weights(found: Candidates, encoder: str | None) -> LesionDecision:
    """The decision, learnt from everything that may be learnt from."""
    learnt = ~found.real
    values = features(found, NAMES, encoder)
    model = fit(values, found, learnt, values.shape[1] - len(NAMES))
    scaler, regression = model[0], model[-1]
    slopes = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - (slopes * scaler.mean_).sum())
    phantom_lesions = (found.group == "phantom") & found.lesion
    typical = np.median(values[phantom_lesions], axis=0)
    latent = tuple(float(value) for value in slopes[len(NAMES) :])
    odds = float(np.median(values[phantom_lesions, len(NAMES) :] @ slopes[len(NAMES) :])) if latent else 0.0
    return LesionDecision(
        intercept,
        *(float(value) for value in slopes[: len(NAMES)]),
        latent=latent,
        typical=(*(float(value) for value in typical[: len(NAMES)]), odds),
    )


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="print a table, too")
    parser.add_argument("--write", action="store_true", help="put the weights into the shipped model")
    options = parser.parse_args()
    found = gather()
    counts = {
        str(group): [
            int((found.group == group)[~found.real].sum()),
            int(found.lesion[(found.group == group) & ~found.real].sum()),
        ]
        for group in np.unique(found.group)
    }
    table = {}
    if found.real.any():
        table |= {"peak": judged(found, ("peak",), None), "peak, white": judged(found, NAMES[:2], None)}
        table |= {"no network": judged(found, NAMES, None)}
        for name in found.latents:
            table[f"latents, {name}"] = judged(found, NAMES, name)
        table["one-class surprise, shipped"] = judged(found, NAMES, "shipped", one_class=True)
    decision, plain = weights(found, "shipped"), weights(found, None)
    if options.table:
        print("| evidence | AUC | AP | precision | recall | F1 |\n|---|---|---|---|---|---|")
        for name, row in table.items():
            print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |")
    if options.write:
        about = {"candidates": counts, "command": "python benchmarks/decision.py --write"}
        save_decision(decision, model_directory("default"), about)
    content = {
        "candidates": counts,
        "judged": table,
        "without_network": plain.__dict__,
        "decision": decision.__dict__,
    }
    print(json.dumps({"name": "decision", **content}))


if __name__ == "__main__":
    main()
