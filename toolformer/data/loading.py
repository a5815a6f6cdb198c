"""In: a source of rows. Out: batches in an order that is a function of (seed, step), from any step on.

Batch k never depends on the batches before it, so a run that was killed goes on with the very batch it would have seen.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Protocol

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from toolformer import stopping
from toolformer.data.batches import CallBatch, collate_calls
from toolformer.data.masking import Rows, mask_rows, mask_tools
from toolformer.data.prompts import Prompts
from toolformer.records import Example, Tool


class RowSource(Protocol):
    """What a stage can be trained on: the built-in world or a corpus on disk."""

    def batch(self, step: int, *, batch_size: int, pool_size: int, tools_per_request: int) -> Rows:
        """Rows over a shared pool of tools; a pure function of the source's seed and ``step``."""

    def tools(self, step: int, n: int) -> list[Tool]:
        """``n`` distinct tools; a pure function of the source's seed and ``step``."""

    def split(self, name: str, rows: int) -> tuple[list[Tool], list[Example]]:
        """The first ``rows`` of a frozen split (validation, test_seen, test_held_out, test_unseen), and their tools."""

    def fingerprints(self) -> dict[str, str]:
        """Names and digests of the data: a run goes on with what it began with."""


def split_rows(source: RowSource, name: str, rows: int) -> Rows:
    """The first ``rows`` of a frozen split with their tools."""
    catalog, examples = source.split(name, rows)
    tools = {tool.id: tool for tool in catalog}
    return [(example, [tools[id_] for id_ in example.tools]) for example in examples]


class Batches(Dataset[CallBatch]):
    """Batch ``k`` of a stage.

    Args:
        source: where rows come from.
        prompts: turns them into tokens.
        seed: of the masking.
        batch_size: requests a batch; 0 = tools only, for auto-encoding.
        pool_size: distinct tools that the requests of a batch share; each is encoded once.
        tools_per_request: tools a request can choose from.
        mask_share: part of the tools whose names are replaced by random identifiers.
        unaided_share: part of the requests in which the decoder finds the tool by itself, among the gists of all, as in
            constrained decoding; in the others it sees the gists of the right tool from the call's start on. Only
            matters for models with ``focus``.
    """

    def __init__(
        self,
        source: RowSource,
        prompts: Prompts,
        *,
        seed: int,
        batch_size: int,
        pool_size: int,
        tools_per_request: int,
        mask_share: float,
        unaided_share: float = 0.0,
    ):
        for key, share in (("mask_share", mask_share), ("unaided_share", unaided_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"batches.{key} is {share}; it must lie between 0 and 1")
        if batch_size and not 1 <= tools_per_request <= pool_size:
            raise ValueError(f"batches.tools_per_request is {tools_per_request}; it must lie between 1 and {pool_size}")
        self.source, self.prompts, self.seed = source, prompts, seed
        self.batch_size, self.pool_size = batch_size, pool_size
        self.tools_per_request, self.mask_share = tools_per_request, mask_share
        self.unaided_share = unaided_share

    def __getitem__(self, index: int) -> CallBatch:
        step = index
        rng = random.Random(f"{self.seed}:{step}")
        if self.batch_size == 0:
            tools = self.source.tools(step, self.pool_size)
            return collate_calls([], self.prompts, mask_tools(tools, self.mask_share, rng))
        rows = self.source.batch(
            step, batch_size=self.batch_size, pool_size=self.pool_size, tools_per_request=self.tools_per_request
        )
        rows = mask_rows([(in_any_order(example, rng), tools) for example, tools in rows], self.mask_share, rng)
        unaided = {i for i in range(len(rows)) if rng.random() < self.unaided_share}
        return collate_calls(rows, self.prompts, unaided=unaided)


def in_any_order(example: Example, rng: random.Random) -> Example:
    """The same request, its calls shuffled: they are judged as a multiset."""
    return replace(example, calls=tuple(rng.sample(example.calls, len(example.calls))))


class ResumableLoader:
    """Batches ``done .. total``; counts what was handed out, not what was fetched ahead.

    Not a ``DataLoader`` subclass, so that Lightning leaves it alone; Lightning saves its ``state_dict``.
    """

    def __init__(self, batches: Batches, total: int, *, rank: int = 0, world: int = 1, workers: int = 0):
        self.batches, self.total, self.rank, self.world, self.workers = batches, total, rank, world, workers
        self.done = 0
        self._stream: Callable[[], Generator[CallBatch] | None] = lambda: None

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[CallBatch]:
        self.close()
        stream = self._batches()
        self._stream = weakref.ref(stream)  # held by its reader alone: its processes end as soon as that drops it
        return stream

    def close(self) -> None:
        """Ends the processes that prepare batches; they would outlive an error whose traceback holds on to them."""
        stream = self._stream()
        if stream is not None:
            stream.close()

    def _batches(self) -> Generator[CallBatch]:
        steps = [k * self.world + self.rank for k in range(self.done, self.total)]
        own = torch.Generator().manual_seed(0)  # else each pass draws from the global one, and a resumed run differs
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=steps,
            num_workers=self.workers,
            generator=own,
            worker_init_fn=in_worker,
            multiprocessing_context="fork" if self.workers else None,  # a source need not be picklable
        )
        for batch in loader:
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """How far the run has come, and over what."""
        return {"done": self.done, "seed": self.batches.seed, "size": self.batches.batch_size, "processes": self.world}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind ``done``; another seed, batch size or number of processes is refused."""
        for key, mine in self.state_dict().items():
            if key != "done" and state[key] != mine:
                raise ValueError(
                    f"checkpoint was made with {key} {state[key]}, this run has {mine}; go on as it began, or give "
                    "this run another name=..."
                )
        self.done = state["done"]


def in_worker(worker: int) -> None:
    """A signal sent to all of a job's processes is for the one that trains."""
    stopping.ignore()


class StageData(L.LightningDataModule):
    """Training batches and validation rows of one stage.

    Args:
        batches: what a step sees.
        validation_rows: rows of the source's validation set, at each check.
        workers: processes that prepare batches; 0 = in the training process.
    """

    def __init__(self, batches: Batches, *, validation_rows: int = 128, workers: int = 0):
        super().__init__()
        self.batches, self.validation_rows, self.workers = batches, validation_rows, workers
        self.loader: ResumableLoader | None = None

    def train_dataloader(self) -> ResumableLoader:
        """All batches of the stage, as one epoch."""
        assert self.trainer is not None  # Lightning attaches it
        total = self.trainer.max_steps * self.trainer.accumulate_grad_batches
        rank, world = self.trainer.global_rank, self.trainer.world_size
        self.loader = ResumableLoader(self.batches, total, rank=rank, world=world, workers=self.workers)
        return self.loader

    def on_exception(self, exception: BaseException) -> None:
        """See ``ResumableLoader.close``."""
        self.teardown("fit")

    def teardown(self, stage: str) -> None:
        """See ``ResumableLoader.close``."""
        if self.loader is not None:
            self.loader.close()

    def val_dataloader(self) -> DataLoader[Rows]:
        """Chunks of rows, still as records: the stage generates answers for them."""
        rows = split_rows(self.batches.source, "validation", self.validation_rows)
        chunks: Any = [rows[i : i + 64] for i in range(0, len(rows), 64)]
        return DataLoader(chunks, batch_size=None)
