"""In: something to do. Out: how long it took, again and again, how much memory it held, and what the machine can do."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes once."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return 1e3 * (time.perf_counter() - start)


def samples(work: Callable[[], object], device: torch.device, *, seconds: float, most: int) -> tuple[list[float], bool]:
    """Milliseconds of each repeat, at most ``most`` and about ``seconds`` in all, and whether a warm-up came before.

    What takes more than half of the time at hand runs once, and what was measured before it is its warm-up.
    """
    first = milliseconds(work, device)
    repeats = min(most, int(1e3 * seconds / first))
    if repeats < 2:
        return [first], False
    return [milliseconds(work, device) for _ in range(repeats)], True


class Ticks:
    """A clock that is told of each token: milliseconds to the first, and between neighbours."""

    def __init__(self, device: torch.device):
        self.device, self.tokens, self._at = device, list[int](), list[float]()
        wait(device)
        self._start = time.perf_counter()

    def __call__(self, token: int) -> None:
        """A token is there, and can be read: no GPU has to be waited for."""
        self._at.append(time.perf_counter())
        self.tokens.append(token)

    @property
    def between(self) -> list[float]:
        """One fewer than tokens."""
        return [1e3 * (b - a) for a, b in zip(self._at, self._at[1:], strict=False)]


class Peak:
    """The most bytes held at one time: of the GPU's memory where one is used, else of the process."""

    bytes = 0


@contextmanager
def peak(device: torch.device) -> Generator[Peak]:
    """Measures the peak within; where a system cannot forget an earlier peak of the process, that one counts too."""
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR.exists():
        try:
            CLEAR.write_text("5")
        except OSError:  # not allowed in some containers
            pass
    yield found
    if device.type == "cuda":
        found.bytes = torch.cuda.max_memory_allocated(device)
    elif STATUS.exists():
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        found.bytes = 1024 * int(line.split()[1])
    else:
        found.bytes = most_held()


def most_held() -> int:
    """The most bytes that this process has held so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def rates(device: torch.device, dtype: torch.dtype, *, size: int, seconds: float) -> dict[str, float]:
    """Operations a second of the fastest of two matrix products, and bytes a second of a copy and of a sum.

    ``size``: rows of the square product; the other has the shape of the MLP of Qwen2.5-0.5B. A copy reads and writes;
    a sum only reads, as decoding does, so the faster of the two is the bandwidth.
    """
    found = {"product": 0.0}
    for rows, inner, columns in ((size, size, size), (size, 896, 4864)):
        a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((rows, inner), (inner, columns)))
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        spent = _median(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, seconds)
        found["product"] = max(found["product"], 2 * rows * inner * columns / spent)
    source = torch.ones(size * size * 16, device=device)
    target = torch.empty_like(source)
    size_bytes = source.numel() * source.element_size()
    found["copy"] = 2 * size_bytes / _median(lambda: target.copy_(source), device, seconds)
    found["sum"] = size_bytes / _median(source.sum, device, seconds)
    return found


def _median(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    milliseconds(work, device)  # caches and kernels
    return statistics.median(samples(work, device, seconds=seconds, most=20)[0]) / 1e3
