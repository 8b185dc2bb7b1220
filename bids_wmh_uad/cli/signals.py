"""SIGTERM, SIGHUP and Ctrl-C: all processes of the run end within seconds, and one line says so."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bids_wmh_uad.errors import Stopped
from bids_wmh_uad.processes import end_children

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
GRACE = 5.0
"""Seconds that the program has to clear up, before it ends as it is."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let signals raise `errors.Stopped` in the block, after the processes that it started were ended.

    A second signal ends the program at once, and so does the end of `GRACE`, wherever it is then. Signals that
    are ignored already, as under nohup, stay so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()
    received: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's form)
        if received or os.getpid() != owner:  # a fork that has not set its own handlers yet
            os._exit(128 + signum)
        received.append(signum)
        watch = threading.Timer(GRACE, _give_up, (128 + signum,))
        watch.daemon = True
        watch.start()
        end_children()
        raise Stopped(signum, SIGNALS[signal.Signals(signum)])

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            if not received:  # else the interpreter is still to end
                signal.signal(number, handler)


def _give_up(code: int) -> None:
    """End the process as it is: what it works on does not let it stop."""
    sys.stderr.flush()
    os._exit(code)
