"""What the program's own bookkeeping costs at the participant level, and whether it grows with the cohort.

One JSON line. The real program on stub sessions of 8 x 8 x 8 voxels: index, graphs, nipype's scheduler, hashes and
pickles, locks, status table, publication; every step of a session but its publication is replaced by one that
writes nothing and returns at once. Milliseconds a session of the whole run, and of its parts; the largest memory
of all processes together (GiB); each at several sizes of cohort. ``growth`` is the time a session of the largest cohort
over that of the smallest. Pages are left out, for a stub has no figures: ``benchmarks/cohort.py`` has them. The group
level of finished sessions is ``benchmarks/group.py``.

    python benchmarks/schedule.py --sessions 100 1000 5000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

os.environ.setdefault("NO_ET", "1")

import nibabel as nib
import nipype.pipeline.engine as pe
import numpy as np
from nipype.interfaces.utility import Function, IdentityInterface
from programs import run

from bids_wmh_uad.bids import derivatives
from bids_wmh_uad.cli.run import main as program
from bids_wmh_uad.files import dump_json
from bids_wmh_uad.participant import run as participant
from bids_wmh_uad.workflows import engine

PARTS = {"index": "find_sessions", "unfinished": "_is_finished", "graphs": "_session_graphs"}
"""Functions of `participant.run` whose time is taken by itself, all calls together."""


def write_cohort(root: Path, count: int) -> None:
    """A dataset of stub sessions: links to one small image."""
    root.mkdir()
    image = root / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), dtype=np.float32), np.eye(4)), image)
    for number in range(1, count + 1):
        anat = root / f"sub-{number:05d}" / "anat"
        anat.mkdir(parents=True)
        for suffix in ("T1w", "FLAIR"):
            os.link(image, anat / f"sub-{number:05d}_{suffix}.nii.gz")
    image.unlink()
    (root / "dataset_description.json").write_text('{"Name": "Stubs", "BIDSVersion": "1.10.0"}')


def nothing(stub_outputs: list, **values):  # noqa: ARG001 (nipype runs the source alone)
    """Stand for a step."""
    results = tuple(stub_outputs)
    return results if len(results) > 1 else results[0]


def finish(texts: dict, **values):  # noqa: ARG001
    """Write what makes a session finished."""
    from pathlib import Path

    from bids_wmh_uad.files import write_text

    for path, text in texts.items():
        write_text(Path(path), text)
    return "done"


def replace_steps(graph: Any, texts: dict[str, str]) -> None:
    """Give every node of a session's graph another interface with the same inputs and outputs."""
    for node in graph._get_all_nodes():
        if isinstance(node.interface, IdentityInterface):
            continue
        outputs = list(node.interface._outputs().copyable_trait_names())
        last = node.name == engine.PUBLISH
        given = "texts" if last else "stub_outputs"
        stub = Function(
            input_names=[*node.interface.inputs.copyable_trait_names(), given],
            output_names=outputs,
            function=finish if last else nothing,
        )
        value = ["a", "b"] if node.name == "draw" else "x"  # a figure each
        stub.inputs.trait_set(**{given: texts if last else [value] * len(outputs)})
        node._interface = stub
        if isinstance(node, pe.MapNode):
            node._inputs = node._create_dynamic_traits(stub.inputs, fields=node.iterfield)


def finished_texts(session: Any, config: Any, digest: str) -> dict[str, str]:
    """The least files that make a session finished."""
    texts = {}
    for name in derivatives.OUTPUTS:
        path = derivatives.output_path(config.output_dir, session, name)
        texts[str(path)] = ""
        if path.suffix in (".gz", ".txt"):
            texts[str(derivatives.sidecar_path(path))] = "{}"
    signature = derivatives.signature(session, config.method, digest)
    summary = {"participant_id": f"sub-{session.subject}", "status": "done", "signature": signature}
    return texts | {
        str(derivatives.output_path(config.output_dir, session, "summary")): dump_json(summary).decode()
    }


def child(arguments: list[str]) -> int:
    """The program with stubs, and with the time of its parts on stdout."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = perf_counter()
            try:
                return function(*given, **named)
            finally:
                seconds[name] += perf_counter() - start

        return call

    def graphs(sessions: Any, config: Any, digest: str) -> list[Any]:
        made = original(sessions, config, digest)
        for session, graph in zip(sessions, made, strict=True):
            replace_steps(graph, finished_texts(session, config, digest))
        return made

    for name, function in PARTS.items():
        setattr(participant, function, timed(name, getattr(participant, function)))
    original = participant._session_graphs
    participant._session_graphs = graphs  # type: ignore[assignment]
    participant.write_reports = lambda *_: None  # type: ignore[assignment]
    code = program(arguments)
    Path(os.environ["PARTS"]).write_text(json.dumps(seconds))
    return code


def measure(root: Path, count: int, nprocs: int) -> dict[str, float]:
    """One run on a cohort of stubs."""
    bids, out, parts = root / f"bids-{count}", root / f"out-{count}", root / "parts.json"
    write_cohort(bids, count)
    command = [sys.executable, __file__, "--child", bids, out, "participant", "-w", root / f"work-{count}"]
    environment = os.environ | {"PARTS": str(parts), "NO_ET": "1"}
    cost = run([*map(str, command), "--nprocs", str(nprocs), "--clean-workdir"], environment)
    each = {name: value / count for name, value in json.loads(parts.read_text()).items()}
    return {
        "whole_ms": round(1000 * cost.seconds / count, 1),
        "cpu_ms": round(1000 * cost.cpu_seconds / count, 1),
        **{f"{name}_ms": round(1000 * value, 2) for name, value in each.items()},
        "peak_gib": round(cost.peak_bytes / 2**30, 2),
    }


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--nprocs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    sizes = {}
    with TemporaryDirectory(prefix="wmhschedule") as folder:
        for count in sorted(options.sessions):
            print(f"{count} sessions", file=sys.stderr)
            sizes[count] = measure(Path(folder), count, options.nprocs)
    whole = [sizes[count]["whole_ms"] for count in (min(sizes), max(sizes))]
    print(
        json.dumps(
            {
                "name": "schedule",
                "nprocs": options.nprocs,
                "sizes": sizes,
                "growth": round(whole[1] / whole[0], 2),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(child(sys.argv[2:]) if sys.argv[1:2] == ["--child"] else main())
