"""The whole program with a session's graph of one step, which lasts as long as a test says.

``python stub.py DIRECTORY ARGUMENTS...``: parsing, locks, log, plugin, workers, failures and pages are the program's.
The step notes its process in DIRECTORY/started.txt and begins to write a file into the output directory; it goes on
when DIRECTORY/go is there. Then it writes what makes a session finished.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), *sys.path]), "NO_ET": "1"}


def start(directory: Path, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Run this file on a dataset, an output directory, a level and options; stdout and stderr are one pipe.

    The work directory is in the output directory, unless the options name another.
    """
    work = ("-w", Path(arguments[1]) / "work")
    command = [sys.executable, __file__, *map(str, (directory, *arguments[:3], *work, *arguments[3:]))]
    return subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def started(directory: Path) -> list[int]:
    """The process numbers of the steps that have begun."""
    path = directory / "started.txt"
    return [int(line) for line in path.read_text().split()] if path.is_file() else []


def wait_for(condition: Any, what: str, seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def step(directory: str, output_dir: str, outputs: dict[str, str]) -> str:
    """The one step of a session."""
    import os
    import time
    from pathlib import Path

    from bids_wmh_uad.files import whole_file, write_text

    with (Path(directory) / "started.txt").open("a") as handle:
        handle.write(f"{os.getpid()}\n")
    first = Path(next(iter(outputs)))
    with whole_file(Path(output_dir) / first.parent / "half.txt") as half:
        half.write_text("half")
        while not (Path(directory) / "go").exists():
            time.sleep(0.05)
    for path, text in outputs.items():
        write_text(Path(output_dir) / path, text)
    return "done"


def main(directory: str, arguments: list[str]) -> int:
    from bids_wmh_uad.bids import derivatives
    from bids_wmh_uad.cli.run import main as program
    from bids_wmh_uad.files import dump_json
    from bids_wmh_uad.participant import run
    from bids_wmh_uad.workflows import engine, plugins

    def graphs(sessions: Any, config: Any, digest: str) -> list[Any]:
        engine.configure_nipype(config)
        import nipype.pipeline.engine as pe
        from nipype.interfaces.utility import Function
        from niworkflows.engine.workflows import LiterateWorkflow

        made = []
        for session in sessions:
            texts = {}
            for name in derivatives.OUTPUTS:
                path = derivatives.output_path(Path(), session, name)
                texts[str(path)] = ""
                if path.suffix in (".gz", ".txt"):
                    texts[str(derivatives.sidecar_path(path))] = "{}"
            signature = derivatives.signature(session, config.method, digest)
            summary = {"participant_id": f"sub-{session.subject}", "status": "done", "signature": signature}
            texts[str(derivatives.output_path(Path(), session, "summary"))] = dump_json(summary).decode()
            names = ["directory", "output_dir", "outputs"]
            node = pe.Node(
                Function(input_names=names, output_names=["out"], function=step), name=engine.PUBLISH
            )
            node.inputs.trait_set(directory=directory, output_dir=str(config.output_dir), outputs=texts)
            workflow = LiterateWorkflow(name=session.workflow_name)
            workflow.add_nodes([node])
            made.append(workflow)
        return made

    run._session_graphs = graphs
    plugins.PRELOADED = ()  # seconds each time, and the one step needs none of it
    return program(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
