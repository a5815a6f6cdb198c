"""In: the name of a function and a number. Out: a process in which that call of it meets a fault, injected for real."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any


def at_call(target: str, number: int, fault: Callable[[], None]) -> None:
    """``fault`` happens just before the ``number``-th call of ``target`` (``package.module:Class.method``)."""
    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *above, name = path.split(".")
    for part in above:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            fault()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def send_twice() -> None:
    """Two signals that are not one passed on."""
    from toolformer import stopping

    stopping.TOGETHER = 0.0
    send(signal.SIGTERM)
    time.sleep(0.05)
    send(signal.SIGTERM)


def kill_worker() -> None:
    """The out-of-memory killer takes a process that prepares batches."""
    victim = multiprocessing.active_children()[0]
    victim.kill()
    time.sleep(1)


def sleep() -> None:
    time.sleep(120)


def not_a_number(number: int) -> None:
    """The loss of one batch is NaN."""
    from toolformer.stages.schema_autoencoding import SchemaAutoEncoding

    original, calls = SchemaAutoEncoding.losses, 0

    def losses(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        found = original(self, *args)
        return {"loss": found["loss"] * float("nan")} if calls == number else found

    SchemaAutoEncoding.losses = losses


def clock_backwards() -> None:
    """Every look at the wall clock is an hour earlier than the one before."""
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    time.time = earlier
