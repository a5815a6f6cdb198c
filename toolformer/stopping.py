"""In: SIGTERM, SIGUSR1 or Ctrl-C. Out: a run that ends after a whole step, with an exit code that schedulers requeue.

Signals belong to the process, and so does what is kept here. Training defers them to the next whole step; elsewhere
they end the run at once, which loses nothing that is not computed again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: LSF's REQUEUE_EXIT_VALUES and Slurm's RequeueExit can name it
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
TOGETHER = 1.0  # seconds; torchrun passes on a signal that the scheduler has sent to everyone: that is one signal
PATIENCE = 30  # seconds that a process which prepares batches stays after SIGTERM, should nobody end it
CONTINUE = "the same command goes on from the last checkpoint"


class Stopped(SystemExit):
    """The run ended early and can go on; ``line`` says why and how. Uncaught, it leaves with the right exit code."""

    def __init__(self, line: str, code: int = REQUEUE):
        super().__init__(code)
        self.line = line


class _Asked:
    by: signal.Signals | None = None
    at = 0.0
    deferred = False


def listen() -> None:
    """Takes the three signals over; only the main thread can."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _on_signal)


def ignore() -> None:
    """For processes that prepare batches: a signal sent to all is for the one that trains, and that one ends them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE))


def asked() -> bool:
    """Whether a signal is waiting."""
    return _Asked.by is not None


def stop(place: str, number: signal.Signals | None = None) -> Stopped:
    """What to raise at ``place``, such as ``after step 7``; the signal may have come to another process."""
    name = number or _Asked.by
    reason = f"stopped by {name.name}" if name else "stopped with the other processes"
    return Stopped(f"{reason} {place}; {CONTINUE}", _code(name))


@contextmanager
def deferred() -> Generator[None]:
    """Within, a signal only leaves word for ``asked``; a second one still ends the process at once."""
    if asked():  # where it came, the exception was swallowed: in a destructor
        raise stop("between two parts of the run")
    _Asked.deferred = True
    try:
        yield
    finally:
        _Asked.deferred = False
    if asked():
        raise stop("between two parts of the run")


def _code(number: int | None) -> int:
    return 128 + signal.SIGINT if number == signal.SIGINT else REQUEUE


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _Asked.by is not None:
        if time.monotonic() - _Asked.at > TOGETHER:
            os._exit(_code(number))
        return
    _Asked.by, _Asked.at = signal.Signals(number), time.monotonic()
    if not _Asked.deferred:
        raise stop("outside of training")
