"""Readers on generated files: whatever they hold, nothing but typed errors comes out, and memory stays bounded.

The same examples in every run. More of them: ``FUZZ=20`` takes twenty times as many.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.bids.dataset import check_dataset, read_filters
from bids_wmh_uad.bids.participants import read_participants
from bids_wmh_uad.core.network.autoencoder import build_autoencoder
from bids_wmh_uad.errors import WmhUadError
from bids_wmh_uad.group.covariates import read_covariates
from bids_wmh_uad.group.scans import read_decision, read_parameters, read_scaling
from bids_wmh_uad.images import read_grid
from bids_wmh_uad.imaging.registration import itk_text, read_transform
from bids_wmh_uad.imaging.scans import geometry_doubts, read_lifted_scan, read_volume
from bids_wmh_uad.models import (
    DECISION_FILE,
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    load_decision,
    load_model,
    model_digest,
    save_decision,
    save_model,
)
from bids_wmh_uad.reports.readers import read_table
from bids_wmh_uad.reports.subject import read_sessions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
MEMORY = 48 * 2**20
"""Most memory that a reader may take for files of at most some kilobytes, bytes."""


def fuzz(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples * int(os.environ.get("FUZZ", "1")),
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def only_typed(read: Callable[..., object], *arguments: object) -> None:
    """Call a reader; errors of other types than this program's pass through and fail the test."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(*arguments)
    except WmhUadError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable() or str(error).encode()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY


# ----------------------------------------------------------------- images

SHAPE = (20, 18, 6)


def _image(kind: Any, order: str) -> bytes:
    header = kind(endianness=order)
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.dtype(order + "i2"))
    header.set_qform(np.diag([1, 1, 3, 1]), code=1)
    header.set_sform(np.diag([1, 1, 3, 1]), code=1)
    header["vox_offset"] = header.single_vox_offset
    data = np.random.default_rng(0).integers(0, 500, SHAPE).astype(order + "i2")
    block: bytes = header.binaryblock
    return block + bytes(4) + data.tobytes(order="F")


IMAGES = [_image(kind, order) for kind in (nib.Nifti1Header, nib.Nifti2Header) for order in "<>"]
ODD_BYTES = st.one_of(
    st.binary(min_size=1, max_size=9),
    st.sampled_from([np.float32(x).tobytes() for x in (np.nan, np.inf, -np.inf, 1e30, -1, 0, 1e-30)]),
    st.sampled_from([np.int16(x).tobytes() for x in (-1, 0, 32767, -32768, 7, 8)]),
    st.sampled_from([np.int64(x).tobytes() for x in (-1, 2**62, 2**40, -(2**63))]),
)


@st.composite
def patched(draw: Any, contents: list[bytes], first: int) -> bytes:
    """One of the contents with some bytes overwritten among the first so many, and perhaps another length."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        at, piece = draw(st.integers(0, min(first, len(content)) - 1)), draw(ODD_BYTES)
        content[at : at + len(piece)] = piece
    end = draw(st.one_of(st.none(), st.integers(0, len(content))))
    return bytes(content[:end]) + draw(st.sampled_from([b"", b"\x00", b"x" * 5000]))


def _read_image(path: Path) -> None:
    for read in (read_grid, read_volume, read_lifted_scan, lambda path: geometry_doubts(path, "T1w")):
        only_typed(read, path)


@fuzz(150)
@given(content=patched(IMAGES, 560), packed=st.booleans())
def test_headers(tmp_path_factory: pytest.TempPathFactory, content: bytes, packed: bool) -> None:
    path = tmp_path_factory.getbasetemp() / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    _read_image(path)


@fuzz(100)
@given(
    content=st.one_of(patched([gzip.compress(image, 1) for image in IMAGES], 10**6), st.binary(max_size=2000))
)
def test_compressed_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "y.nii.gz"
    path.write_bytes(content)
    _read_image(path)


def test_the_intact_images_can_be_read(tmp_path: Path) -> None:
    for number, content in enumerate(IMAGES):
        path = tmp_path / f"{number}.nii.gz"
        path.write_bytes(gzip.compress(content))
        assert read_lifted_scan(path)[0].shape == SHAPE


# ------------------------------------------------------------------- JSON

KEYS = st.one_of(
    st.sampled_from(
        ["t1w", "flair", "session", "run", "WhiteMatter", "mode", "scale", "Parameters", "threshold", "score",
         "LesionDecision", "intercept", "latent", "typical", "decision", "weights_sha256", "architecture", "name",
         "in_channels", "input", "one_class", "participant_id", "session_id", "status", "warnings", "Name", "BIDSVersion"]
    ),
    st.text(max_size=3),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["done", "*", "1", "nan"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
JSON = st.one_of(
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    VALUES.map(lambda value: json.dumps(value).encode("utf-16")),
    st.builds(lambda text, count: text * count, st.sampled_from([b"[", b'{"a":', b"-", b"9"]), st.integers(1, 200_000)),
    st.binary(max_size=60),
)  # fmt: skip


@fuzz(100)
@given(content=JSON)
def test_json(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "json"
    anat = root / "sub-1" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    for name in ("filter.json", "dataset_description.json", "x.json"):
        (root / name).write_bytes(content)
    for name in ("desc-wmh_summary", "space-FLAIR_desc-anomaly_map", "space-FLAIR_desc-evidence_map"):
        (anat / f"sub-1_{name}.json").write_bytes(content)
    summary = anat / "sub-1_desc-wmh_summary.json"
    only_typed(read_filters, root / "filter.json")
    only_typed(check_dataset, root)
    only_typed(lambda path: check_dataset(path, skip_validation=True), root)
    only_typed(read_scaling, root / "x.nii.gz")
    for read in (derivatives.read_summary, read_parameters, read_decision):
        only_typed(read, summary)
    only_typed(read_sessions, root, "1")


# ----------------------------------------------------------------- tables

CELLS = st.one_of(
    st.sampled_from(["participant_id", "site", "Scanner", "sub-01", "01", "n/a", '"']), st.text(max_size=6)
)
TABLES = st.one_of(
    st.lists(st.lists(CELLS, max_size=4), max_size=5).map(
        lambda rows: "\n".join("\t".join(row) for row in rows).encode("utf-8", "surrogatepass")
    ),
    st.lists(st.lists(CELLS, max_size=4), max_size=5).map(
        lambda rows: "\r\n".join(";".join(row) for row in rows).encode("utf-16", "surrogatepass")
    ),
    st.binary(max_size=100),
    st.just(b"participant_id\tsite\n" + b"x" * 200_000),
    st.just(b'participant_id\tsite\n"' + b"\n" * 1000),
)


@fuzz(150)
@given(content=TABLES)
def test_tables(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.getbasetemp()
    path = root / "participants.tsv"
    path.write_bytes(content)
    only_typed(read_participants, [root], [])
    visits = root / "sub-1" / "sub-1_sessions.tsv"
    visits.parent.mkdir(exist_ok=True)
    visits.write_bytes(content)
    only_typed(read_covariates, [root], [("sub-1", "ses-1"), ("sub-2", "n/a")], ["status"])
    only_typed(read_table, path)


@fuzz(100)
@given(content=st.one_of(patched([itk_text(np.eye(4)).encode()], 200), st.binary(max_size=100)))
def test_transforms(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "xfm.txt"
    path.write_bytes(content)
    only_typed(read_transform, path)


# ----------------------------------------------------------------- models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(build_autoencoder(0), tmp_path_factory.mktemp("fuzzed") / "model", {})


def _describe(directory: Path, **entries: Any) -> None:
    path = directory / DESCRIPTION_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@fuzz(60)
@given(data=st.data())
def test_weights(model: Path, data: st.DataObject) -> None:
    """Of one who knows that the description has their SHA-256."""
    whole = (model / WEIGHTS_FILE).read_bytes()
    described = (model / DESCRIPTION_FILE).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    try:
        content = data.draw(patched([whole], data.draw(st.sampled_from([8, header, len(whole)]))))
        (model / WEIGHTS_FILE).write_bytes(content)
        _describe(model, weights_sha256=hashlib.sha256(content).hexdigest())
        only_typed(load_model, model)
    finally:
        (model / WEIGHTS_FILE).write_bytes(whole)
        (model / DESCRIPTION_FILE).write_bytes(described)


@fuzz(100)
@given(entries=OBJECTS, raw=st.one_of(st.none(), JSON), decision=OBJECTS, broken=st.one_of(st.none(), JSON))
def test_descriptions(
    model: Path, entries: dict[str, Any], raw: bytes | None, decision: dict[str, Any], broken: bytes | None
) -> None:
    described = (model / DESCRIPTION_FILE).read_bytes()
    try:
        _describe(model, **entries)
        digest = json.loads(described)["weights_sha256"]
        content = json.dumps({"weights_sha256": digest, "decision": decision}).encode()
        (model / DECISION_FILE).write_bytes(content if broken is None else broken)
        if raw is not None:
            (model / DESCRIPTION_FILE).write_bytes(raw)
        for read in (load_model, load_decision, model_digest):
            only_typed(read, model)
        (model / DESCRIPTION_FILE).write_bytes(described)
        only_typed(load_decision, model)
    finally:
        (model / DESCRIPTION_FILE).write_bytes(described)
        (model / DECISION_FILE).unlink(missing_ok=True)


def test_the_intact_model_can_be_read(model: Path) -> None:
    from bids_wmh_uad.core.lesion.decision import LesionDecision

    save_decision(LesionDecision(), model, {})
    load_model(model)
    assert load_decision(model) == LesionDecision()
    (model / DECISION_FILE).unlink()
