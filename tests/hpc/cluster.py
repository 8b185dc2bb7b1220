"""A one-node Slurm on the loopback interface: no systemd, no accounting, no settings outside its own directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from container.fixtures import ENVIRONMENT, run

SETTINGS = """\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={root}/finished.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,defer
PropagateResourceLimits=NONE
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
MinJobAge=3600
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Slurm in the directory `root`, started by :meth:`start`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**ENVIRONMENT, "SLURM_CONF": str(root / "slurm.conf")}

    def start(self) -> None:
        """Start munge, the controller and the node, and wait until the node is idle."""
        root = self.root
        for name in ("munge", "state", "spool"):
            (root / name).mkdir(parents=True)
        root.chmod(0o755)
        (root / "munge").chmod(0o755)
        key = root / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        controller, daemon = _free_ports(2)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        text = SETTINGS.format(
            root=root, host=socket.gethostname().split(".")[0], controller=controller, daemon=daemon,
            cpus=os.cpu_count(), memory=int(memory * 0.9),
        )  # fmt: skip
        (root / "slurm.conf").write_text(text)
        munge = [
            f"--{name}-file={root}/munge/{name.removesuffix('-file')}"
            for name in ("key", "pid", "log", "seed")
        ]
        self.run("munged", "--num-threads=1", f"--socket={root}/munge/socket", *munge)
        self.run("slurmctld")
        self.run("slurmd")
        for _ in range(60):
            if self.run("sinfo", "--noheader", "--format=%T", code=None).stdout.strip() == "idle":
                return
            time.sleep(1)
        raise AssertionError(f"the node did not come up, see {root}/slurmd.log")

    def run(
        self, *command: str | Path, code: int | None = 0, **more: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that knows this cluster."""
        return run(*command, code=code, **{"env": self.environment, **more})

    def wait(self, *jobs: str) -> None:
        """Return when none of the jobs is pending or running."""
        while self.run("squeue", "--noheader", f"--jobs={','.join(jobs)}").stdout.strip():
            time.sleep(2)

    def finished(self) -> str:
        """Slurm's record of finished jobs, one line each."""
        path = self.root / "finished.txt"
        return path.read_text() if path.is_file() else ""

    def stop(self) -> None:
        """End the three daemons, the jobs first."""
        self.run("scancel", "--user=root", code=None)
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            path = self.root / name
            if path.is_file():
                os.kill(int(path.read_text()), signal.SIGTERM)
        time.sleep(1)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports
