"""Hostile files: nothing that a stranger wrote is executed, and none of it takes the machine's memory or time."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import re
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from bids_wmh_uad.cli.parser import parse_args
from bids_wmh_uad.errors import BAD_FILTER_FILE, BAD_MODEL, NOT_BIDS, UNREADABLE_SUMMARY
from bids_wmh_uad.workflows.engine import workflow_name
from faults.harness import INTACT, REASON_LEFT, REFUSED, UNTOUCHED, Fault, State, Tried, both
from faults.surroundings import again, dry, session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from faults.ground import Ground

    Make = Callable[[Ground], Sequence[str | Path]]

CANARY = "executed.txt"
MUCH_GIB = 1.5
NOT_OURS = re.compile("belongs to another user|others may write there|a link that leads out")
SCAN = Path("sub-02", "anat", "sub-02_FLAIR.nii.gz")


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (os.system, (f"touch '{self.path}'",))


def _nothing_executed(tried: Tried) -> None:
    assert not (tried.ground.bids.parent / CANARY).exists()
    INTACT.check(tried)


def _little_memory(tried: Tried) -> None:
    assert tried.peak_gib < MUCH_GIB, f"{tried.peak_gib:.1f} GiB"


NOT_EXECUTED = State("nothing executed", _nothing_executed)
SMALL = State(f"below {MUCH_GIB} GiB", _little_memory)
REFUSED_SMALL = both(REASON_LEFT, SMALL)


def foreign_work(mode: int, owner: int, *, link: bool = False) -> Make:
    """A work directory of a run with the same inputs, whose pickles somebody else replaced: nipype takes its steps for done."""

    def make(here: Ground) -> Sequence[str | Path]:
        work = here.bids.parent / "elsewhere" if link else here.work
        shutil.copytree(here.earlier.parent / "work", work)
        (steps,) = work.glob("bids_wmh_uad_*")  # as if they were of this dataset
        config = parse_args([str(here.bids), str(here.out), "participant", "-w", str(here.work)])
        steps.rename(work / workflow_name(config))
        evil = gzip.compress(pickle.dumps(Evil(here.bids.parent / CANARY)))
        for path in (work, *work.rglob("*")):
            if path.suffix == ".pklz":
                path.write_bytes(evil)
            path.chmod(mode)
            os.chown(path, owner, owner)
        if link:
            here.work.symlink_to(work)
        return session(here)

    return make


def not_root() -> str:
    return "" if os.geteuid() == 0 else "only root can give files away"


def header(shape: tuple[int, int, int], *, data: int = 0) -> Make:
    """Scans that claim a grid and bring `data` bytes of zeros."""

    def make(here: Ground) -> Sequence[str | Path]:
        claimed = nib.Nifti1Header()
        claimed.set_data_dtype(np.int16)
        claimed["dim"][:4] = (3, *shape)
        claimed["pixdim"][1:4] = 1
        claimed["sform_code"], claimed["srow_x"], claimed["srow_y"], claimed["srow_z"] = (
            1,
            [1, 0, 0, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
        )
        claimed["magic"], claimed["vox_offset"] = b"n+1", 352
        with gzip.open(here.bids / SCAN, "wb", compresslevel=9) as stream:
            stream.write(claimed.binaryblock + b"\0" * 4)
            for _ in range(data >> 24):
                stream.write(bytes(1 << 24))
        shutil.copy(
            here.bids / SCAN, here.bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
        )  # or its brain is extracted
        return session(here)

    return make


def instead(make_file: Callable[[Path], object], *arguments: str) -> Make:
    """Something else in place of the FLAIR."""

    def make(here: Ground) -> Sequence[str | Path]:
        (here.bids / SCAN).unlink()
        make_file(here.bids / SCAN)
        return arguments or session(here)

    return make


def beside(make_file: Callable[[bytes], object]) -> Make:
    """A file whose name is no text, beside the scans."""

    def make(here: Ground) -> Sequence[str | Path]:
        make_file(os.fsencode(here.bids / "sub-02" / "anat"))
        return dry(here)

    return make


def _strange_name(anat: bytes) -> None:
    Path(os.fsdecode(anat + b"/sub-02_acq-\xff\xfe_FLAIR.nii.gz")).write_bytes(b"")


def description(text: str) -> Make:
    def make(here: Ground) -> Sequence[str | Path]:
        (here.bids / "dataset_description.json").write_text(text)
        return dry(here)

    return make


def filters(text: str) -> Make:
    def make(here: Ground) -> Sequence[str | Path]:
        file = here.bids.parent / "filter.json"
        file.write_text(text)
        return (*dry(here), "--bids-filter-file", file)

    return make


def summary(text: str) -> Make:
    """The earlier summary of a session that has no results otherwise, at the group level."""

    def make(here: Ground) -> Sequence[str | Path]:
        path = here.out / "sub-02" / "anat" / "sub-02_desc-wmh_summary.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return ("group",)

    return make


def model(change: Callable[[Path], object]) -> Make:
    """A model directory whose weights were tampered with."""

    def make(here: Ground) -> Sequence[str | Path]:
        from bids_wmh_uad.core.network.autoencoder import build_autoencoder
        from bids_wmh_uad.models import save_model

        directory = save_model(build_autoencoder(0), here.bids.parent / "model", {"name": "untrained"})
        change(directory / "model.safetensors")
        return (
            "participant",
            "--participant-label",
            "02",
            "--model",
            directory,
            "-d",
            here.earlier,
            "--nprocs",
            "2",
        )

    return make


def tensors(change: Callable[[object], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(path, "pt") as content:
            metadata = content.metadata()
            loaded = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
        save_file({name: change(tensor) for name, tensor in loaded.items()}, path, metadata)
        description = path.with_name("model.json")
        about = json.loads(description.read_text())
        about["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()  # as its author would
        description.write_text(json.dumps(about))

    return rewrite


def device(path: str) -> Callable[[Path], None]:
    def link(target: Path) -> None:
        target.unlink(missing_ok=True)
        target.symlink_to(path)

    return link


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def long_header(path: Path) -> None:
    """Weights whose header claims to be 2 GB long."""
    path.write_bytes(struct.pack("<Q", 2 << 30) + b"{}")


def scripted(here: Ground) -> Sequence[str | Path]:
    """A figure that somebody gave a script."""
    for figure in (here.out / "sub-01" / "figures").glob("*.svg"):
        text = figure.read_text().replace(
            "</svg>", "<script>alert(20)</script><a href='javascript:alert(20)'/></svg>"
        )
        figure.write_text(text.replace("<svg ", "<svg onload='alert(20)' ", 1))
    return ("participant", "--reports-only")


def _harmless_pages(tried: Tried) -> None:
    pages = list(tried.ground.out.glob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text()
        assert "alert(20)" not in text, page.name
        assert "<img src=x" not in text, page.name
        assert "Content-Security-Policy" in text, page.name


HARMLESS = State("pages without it, with a Content-Security-Policy", _harmless_pages)
NOTED = both(INTACT, SMALL)
DEEP = "[" * 100_000 + "]" * 100_000


FAULTS = (
    Fault("work directory that others may write, with pickles", "security", foreign_work(0o777, 0), REFUSED, NOT_OURS, NOT_EXECUTED),
    Fault("work directory of somebody else, with pickles", "security", foreign_work(0o755, 54321), REFUSED, NOT_OURS, NOT_EXECUTED, needs=not_root),
    Fault("work directory that is a link to such a one", "security", foreign_work(0o777, 54321, link=True), REFUSED, NOT_OURS, NOT_EXECUTED, needs=not_root),
    Fault("header of 1,100 cubed, no data", "security", header((1100, 1100, 1100)), 1, re.compile("sub-02: FAILED"), REFUSED_SMALL, alike=True),
    Fault("header of 2,000 cubed, no data", "security", header((2000, 2000, 2000)), 1, re.compile("sub-02: FAILED"), REFUSED_SMALL, alike=True),
    Fault("header of 32,767 cubed, no data", "security", header((32767, 32767, 32767)), 1, re.compile("sub-02: FAILED"), REFUSED_SMALL, alike=True),
    Fault("1 MB of gzip that becomes 1 GB", "security", header((800, 800, 800), data=1 << 30), 1, re.compile("sub-02: FAILED"), REFUSED_SMALL, alike=True),
    Fault("/dev/zero as a scan", "security", instead(device("/dev/zero")), REFUSED, re.compile("FLAIR"), REFUSED_SMALL),
    Fault("FIFO as a scan", "security", instead(fifo), REFUSED, re.compile("FLAIR"), REFUSED_SMALL),
    Fault("/dev/zero as weights", "security", model(device("/dev/zero")), 65, BAD_MODEL, REFUSED_SMALL),
    Fault("FIFO as weights", "security", model(fifo), 65, BAD_MODEL, REFUSED_SMALL),
    Fault("weights with a header of 2 GB", "security", model(long_header), 65, BAD_MODEL, REFUSED_SMALL),
    Fault("weights that are NaN", "security", model(tensors(lambda tensor: tensor * float("nan"))), 65, BAD_MODEL, REFUSED_SMALL),
    Fault("weights of another type", "security", model(tensors(lambda tensor: tensor.double())), 65, BAD_MODEL, REFUSED_SMALL),
    Fault("weights that are a pickle", "security", model(lambda path: path.write_bytes(pickle.dumps({"a": 1}))), 65, BAD_MODEL, REFUSED_SMALL),
    Fault("description nested 100,000 deep", "security", description(DEEP), 16, NOT_BIDS, UNTOUCHED),
    Fault("description that is Infinity", "security", description("Infinity"), 16, NOT_BIDS, UNTOUCHED),
    Fault("filter file nested 100,000 deep", "security", filters(DEEP), 64, BAD_FILTER_FILE, UNTOUCHED),
    Fault("filter file that is a list", "security", filters("[1, 2]"), 64, BAD_FILTER_FILE, UNTOUCHED),
    Fault("summary nested 100,000 deep", "security", summary(DEEP), frozenset({0, 1}), UNREADABLE_SUMMARY, NOTED),
    Fault("summary with lists where objects belong", "security", summary(json.dumps({"participant_id": "sub-02", "session_id": "n/a", "status": "done", "threshold": [], "warnings": 3, "versions": []})), frozenset({0, 1}), "", NOTED, full=True),
    Fault("summary with Infinity as volume", "security", summary('{"participant_id": "sub-02", "session_id": "n/a", "status": "done", "wmh_volume_ml": Infinity, "icv_ml": -Infinity}'), frozenset({0, 1}), UNREADABLE_SUMMARY, NOTED),
    Fault("file name that is no text", "security", beside(_strange_name), frozenset({0, 1}), "", UNTOUCHED),
    Fault("OUT named like markup", "security", again, 0, "", HARMLESS, out_name="<img src=x onerror=alert(20)>"),
    Fault("figure with a script", "security", scripted, 0, "", HARMLESS),
)  # fmt: skip
