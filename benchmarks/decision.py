"""The lesion decision: its weights, what each piece of evidence is worth, and what the latent space adds.

One JSON line; with ``--table`` readable tables first; with ``--write`` the weights go into the shipped model
(``decision.json``), and those without a network are printed for `LesionDecision`'s defaults.

Candidates come from phantoms (made and preprocessed once into ``build/detection``), whose lesions and normal bright
structures are known, and, where ``../shared/data`` has real scans, from lesion shapes imprinted on real tissue: there the
candidates outside the shapes, and well away from the person's own lesions, are what normal tissue of people offers. No
label of a real lesion goes in but its shape, and that its surroundings are left out. Phantoms and people weigh the same, and so do
lesions and the rest. The weights are those of a logistic regression on standardised evidence.

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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detection import DATA, collect_phantoms, collect_real, program_map
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from scans import Case, imprinted_cases
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from bids_wmh_uad.core.image.volume import voxel_sizes
from bids_wmh_uad.core.lesion.candidates import TOP_VOXELS, Surroundings, describe_candidates
from bids_wmh_uad.core.lesion.components import label_lesions
from bids_wmh_uad.core.lesion.decision import LesionDecision, evidence
from bids_wmh_uad.core.lesion.threshold import operating_point
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.core.network.embedding import embed_patches
from bids_wmh_uad.core.network.patches import extract_patches
from bids_wmh_uad.core.parameters import DetectionParameters
from bids_wmh_uad.core.svm.estimator import OneClassSVM
from bids_wmh_uad.models import load_model, model_directory, save_decision

PHANTOMS = {"decision": (6, 4, 101, None), "decision-heavy": (2, 0, 102, 60.0)}
"""Patients, controls, seed and load (mL; None: 1 to 40) of the phantoms that the weights are learnt from."""
IMPRINT_SEED, IMPRINTS_PER_BAND = 1, 5
"""Of the imprinted scans to learn from; those that `detection.py` judges by have another seed."""
LESION_SHARE = 0.2
"""A candidate is a lesion if at least so much of it is one, and is none if nothing is; those between are left out."""
NAMES = ("peak", "white", "fluid", "between")
"""The evidence without a network, in the order of `evidence`."""
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
    evidence : (n, 4) array
        In the order of `NAMES`.
    lesion : (n,) bool array
    latents : dict of str to (n, p, d) array
        Of the brightest voxels, by encoder.
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


def encoders() -> dict[str, Any]:
    """The shipped encoder, and some that nobody trained."""
    random = {f"random {seed}": build_autoencoder(seed).eval() for seed in range(RANDOM_ENCODERS)}
    return {"shipped": load_model("default")[0], **random}


def candidates_of(case: Case) -> Candidates:
    """The candidates of a scan by the default score, outside the ventricles."""
    torch.set_num_threads(1)
    params = DetectionParameters()
    anomaly, _ = program_map(case, params, seed=0)
    tissue, spacing = case.tissue, voxel_sizes(case.affine)
    point = operating_point(params, anomaly, tissue.mask, tissue.likely_grey)
    around = Surroundings.of(tissue, case.landmarks, case.affine)
    above = point.apply(anomaly, tissue.mask) & ~around.filled
    labels = label_lesions(above, case.affine, params.min_lesion_volume)
    found = describe_candidates(labels, anomaly, point.value, around, spacing)
    voxels = [np.flatnonzero(labels == number) for number in range(1, len(found) + 1)]
    share = np.array([case.lesion.flat[own].mean() for own in voxels])
    counted = np.array([case.inside.flat[own].mean() > 0.5 for own in voxels])
    kept = np.flatnonzero(counted & ((share == 0) | (share >= LESION_SHARE)))
    top = [voxels[k][np.argsort(-anomaly.flat[voxels[k]], kind="stable")[:TOP_VOXELS]] for k in kept]
    rows = np.concatenate([np.resize(own, TOP_VOXELS) for own in top]) if top else np.zeros(0, int)
    patches = extract_patches(case.scan.network_input(), on_working_grid(case, rows))
    latents = {
        name: embed_patches(model, patches).reshape(kept.size, TOP_VOXELS, -1)
        for name, model in encoders().items()
    }
    group = next((person for person in PERSONS if person in case.name.split("-on-")[-1]), "phantom")
    values = np.array([list(evidence(found[k]).values()) for k in kept]).reshape(kept.size, len(NAMES))
    of_all = np.full(kept.size, group), np.full(kept.size, case.kind == "real")
    return Candidates(*of_all, values, share[kept] > 0, latents)


def on_working_grid(case: Case, voxels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The working grid's voxels nearest to those of the FLAIR, by their flat numbers."""
    own = np.stack(np.unravel_index(voxels, case.lesion.shape), axis=1)
    there = np.linalg.inv(case.grid.affine) @ case.affine
    nearest = np.rint(own @ there[:3, :3].T + there[:3, 3]).astype(np.int64)
    return np.clip(nearest, 0, np.array(case.grid.shape) - 1)


def gather() -> Candidates:
    """Candidates of phantoms, and of real and imprinted scans where there are any."""
    cases = collect_phantoms(PHANTOMS)
    real = collect_real()
    if real:
        cases += real
        cases += list(imprinted_cases(real, DATA / "ms-masks-mni", IMPRINTS_PER_BAND, seed=IMPRINT_SEED))
    return Candidates.joined(Parallel(n_jobs=cpu_count())(delayed(candidates_of)(case) for case in cases))


def features(found: Candidates, names: tuple[str, ...], encoder: str | None) -> NDArray[np.float64]:
    """Evidence of some names, and the mean latents by an encoder."""
    columns = [found.evidence[:, [NAMES.index(name) for name in names]]]
    if encoder is not None:
        columns.append(found.latents[encoder].mean(axis=1))
    return np.concatenate(columns, axis=1)


def fit(values: NDArray[np.float64], found: Candidates, learnt: NDArray[np.bool_]) -> Pipeline:
    """Logistic regression on the candidates to learn from: phantoms and people, lesions and the rest weigh the same."""
    weight = np.zeros(learnt.size)
    for people in (True, False):
        for lesion in (True, False):
            own = learnt & ((found.group != "phantom") == people) & (found.lesion == lesion)
            weight[own] = learnt.sum() / max(1, own.sum())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    chosen = values[learnt], found.lesion[learnt]
    return model.fit(*chosen, logisticregression__sample_weight=weight[learnt] / weight[learnt].mean())


def surprise(found: Candidates, encoder: str, learnt: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean surprise of a candidate's latents under a One-Class SVM of the normal ones learnt from."""
    latents = found.latents[encoder]
    normal = latents[learnt & ~found.lesion].reshape(-1, latents.shape[-1])
    scaler = StandardScaler().fit(normal)
    model = OneClassSVM(nu=DetectionParameters.nu, gamma="scale").fit(scaler.transform(normal))
    score = model.score_samples(scaler.transform(latents.reshape(-1, latents.shape[-1])))
    return -np.log(np.maximum(score, 1e-12)).reshape(latents.shape[:2]).mean(axis=1)


def judged(
    found: Candidates, names: tuple[str, ...], encoder: str | None, one_class: bool = False
) -> dict[str, float]:
    """Leave one person out: how well that person's own lesions are told from the rest."""
    probability = np.zeros(found.lesion.size)
    for person in PERSONS:
        learnt, tested = ~found.real & (found.group != person), found.real & (found.group == person)
        values = features(found, names, None if one_class else encoder)
        if one_class and encoder is not None:
            values = np.column_stack([values, surprise(found, encoder, learnt)])
        probability[tested] = fit(values, found, learnt).predict_proba(values[tested])[:, 1]
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
    model = fit(values, found, learnt)
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
