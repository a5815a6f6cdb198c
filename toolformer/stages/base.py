"""In: batches from the loader. Out: losses, gradients and everything that is logged, around one shared model.

The three stages differ in ``losses`` and in what they validate; warm-up, optimiser, freezing and logging are here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from toolformer.data.batches import CallBatch, ToolBatch, collate_calls
from toolformer.data.masking import Rows
from toolformer.data.prompts import Prompts
from toolformer.model.modeling import ToolFormerMicro
from toolformer.model.packing import Pack, pack
from toolformer.stages.optimizers import build_optimizer, warmup_cosine
from toolformer.stages.sharding import shard, whole

OPTIONAL_PARTS = ("pointer", "copy_head", "no_tool")


class Stage(L.LightningModule):
    """One stage of the curriculum.

    Args:
        model: the shared backbone; it is trained in place.
        prompts: turns rows into tokens, for validation.
        lr: peak learning rate.
        warmup_steps: optimiser steps of linear warm-up, then a cosine to ``lr * lr_floor`` at ``trainer.max_steps``.
        optimizer: ``adamw`` or ``muon``.
        freeze: patterns of parameter names (``decoder.layers.*.mlp.*``) that this stage leaves alone.
        bad_steps: ``stop`` or ``skip`` a step whose gradient is not finite; its batches are kept in either case.
    """

    def __init__(
        self,
        model: ToolFormerMicro,
        prompts: Prompts,
        *,
        lr: float,
        warmup_steps: int,
        lr_floor: float = 0.0,
        optimizer: str = "adamw",
        weight_decay: float = 0.01,
        freeze: Sequence[str] = (),
        bad_steps: str = "stop",
    ):
        super().__init__()
        self.model, self.prompts = model, prompts
        self.lr, self.lr_floor, self.warmup_steps = lr, lr_floor, warmup_steps
        self.optimizer_name, self.weight_decay = optimizer, weight_decay
        if bad_steps not in ("stop", "skip"):
            raise ValueError(f"stage.module.bad_steps is {bad_steps!r}; use stop or skip")
        self.bad_steps = bad_steps
        self.scalars: list[str] = []  # see ``shard``
        freeze_parameters(model, freeze)
        self._since, self._waited, self._examples, self._tokens = 0.0, 0.0, 0, 0
        self._window: list[tuple[CallBatch, dict[str, Tensor]]] = []  # of the step that is being accumulated

    def configure_model(self) -> None:
        """In shards, where the trainer's strategy leaves it to the module how it is spread."""
        if self.device_mesh is not None:
            self.scalars = shard(self, self.trainer.strategy.root_device.type)

    @property
    def reads_requests(self) -> bool:
        """Whether the losses need the requests as the encoder reads them."""
        return False

    def losses(self, batch: CallBatch, encoded: Encoded) -> dict[str, Tensor]:
        """The parts of the loss; their weighted sum under ``loss``."""
        raise NotImplementedError

    def rebuild(self, tools: ToolBatch, gists: Tensor) -> Tensor:
        """Mean next-token loss of each schema, read from nothing but its own gists ``(U, K, D)``."""
        rows, seen = schema_rows(tools)
        return self.rebuilt(tools, rows, self.model.decode_packed(rows, gists, seen))

    def rebuilt(self, tools: ToolBatch, rows: Pack, states: Tensor) -> Tensor:
        """The same of schemas ``rows`` that the decoder has read: ``states (N, D)``."""
        total, count = self.model.packed_loss(states, rows, tools.rebuild_labels[tools.rebuild_mask])
        return total / count.clamp(min=1)

    def training_step(self, batch: CallBatch, batch_idx: int) -> Tensor:
        """One batch; its parts are logged with those of the step's other batches."""
        encoded = encode(self.model, batch, self.reads_requests)
        parts = self.losses(batch, encoded)
        self._examples += len(batch.input_ids) or len(batch.tools.ids)
        self._tokens += int(batch.attention_mask.sum()) + int(batch.tools.mask.sum())
        measured = {f"train/{name}": value.detach() for name, value in parts.items()}
        if self.logging_step:
            self.log("loss", parts["loss"].detach(), prog_bar=True, logger=False)
            measured |= gist_statistics(encoded.gists.detach().float())
        self._window.append((batch, measured))
        return parts["loss"]

    def every(self, steps: int) -> bool:
        """Whether this is a step in which a part that is due every so many steps is due; in validation it always is."""
        return not self.training or (self.trainer.global_step + 1) % steps == 0

    @property
    def logging_step(self) -> bool:
        """Whether Lightning writes down what is logged in this step."""
        every: int = getattr(self.trainer, "log_every_n_steps")  # noqa: B009  # set by a connector, unknown to checkers
        return (self.trainer.global_step + 1) % every == 0

    def on_train_start(self) -> None:
        """The clock of speeds starts here, and again after each validation."""
        self._since, self._waited, self._examples, self._tokens = time.perf_counter(), self.waited, 0, 0

    @property
    def waited(self) -> float:
        """Seconds that training has waited for batches."""
        loader: Any = self.trainer.train_dataloader
        return loader.waited

    def on_validation_end(self) -> None:
        """See ``on_train_start``."""
        self.on_train_start()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """The end of a step, on all its batches and processes: its row is logged, then the weights may move.

        Here and not behind the step, so that a checkpoint never precedes the row of a step that it holds.
        """
        norm = clip_gradients(self.model, gradient_clip_val)
        if self.logging_step:
            self._log_row(norm)
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None  # it skips such steps by itself
        if not scaled and not torch.isfinite(norm):
            self._bad_step(optimizer, float(norm))
        self._window.clear()

    def _log_row(self, norm: Tensor) -> None:
        names = list(self._window[0][1])
        means = torch.stack([torch.stack([found[name].float() for name in names]) for _, found in self._window]).mean(0)
        means = self.trainer.strategy.reduce(means, reduce_op="mean")
        spent, processes = max(time.perf_counter() - self._since, 1e-9), self.trainer.world_size
        gates: list[Any] = [layer.cross_attn_gate for layer in self.model.decoder.layers]
        row = {
            **dict(zip(names, means.tolist(), strict=True)),
            **{f"gate/layer_{i:02d}": opened(gate) for i, gate in enumerate(gates)},
            "grad_norm": float(norm),
            "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
            "examples_per_second": self._examples * processes / spent,
            "tokens_per_second": self._tokens * processes / spent,
            "waited_per_second": (self.waited - self._waited) / spent,  # for batches
        }
        self.on_train_start()
        for logger in self.loggers:
            logger.log_metrics(row, step=self.trainer.global_step)

    def _bad_step(self, optimizer: torch.optim.Optimizer, norm: float) -> None:
        step, process = self.trainer.global_step, self.trainer.global_rank
        path = Path(self.trainer.default_root_dir) / "bad-steps" / f"step-{step:08d}-process-{process}.pt"
        path.parent.mkdir(exist_ok=True)
        torch.save([{"batch": as_dict(batch), "measured": measured} for batch, measured in self._window], path)
        losses = ", ".join(f"{float(measured['train/loss']):.6g}" for _, measured in self._window)
        line = f"step {step}: the loss is {losses}, the gradient {norm}; its batches are in {path}"
        if self.bad_steps == "stop":
            remedy = "lower stage.module.lr, or skip such steps with stage.module.bad_steps=skip"
            raise ValueError(f"{line}; the checkpoints before it are good: {remedy}")
        print(f"warning: {line}; skipped", file=sys.stderr, flush=True)
        optimizer.zero_grad(set_to_none=True)  # a parameter without a gradient stays as it is, its momentum too

    @torch.no_grad()
    def validation_step(self, rows: Rows, batch_idx: int) -> None:
        """The same losses on fresh rows."""
        batch = self.to_device(collate_calls(rows, self.prompts))
        parts = self.losses(batch, encode(self.model, batch, self.reads_requests))
        self.log_dict({f"validation/{name}": value for name, value in parts.items()}, batch_size=len(rows))

    def to_device(self, batch: CallBatch) -> CallBatch:
        """A batch on the model's device."""
        return move_data_to_device(batch, self.device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Tensors travel; validation rows are records and stay."""
        return (
            super().transfer_batch_to_device(batch, device, dataloader_idx) if isinstance(batch, CallBatch) else batch
        )

    def configure_optimizers(self) -> Any:
        """The optimiser over what is not frozen, and its schedule per step."""
        optimizer = build_optimizer(self.model, self.optimizer_name, lr=self.lr, weight_decay=self.weight_decay)
        schedule = warmup_cosine(optimizer, self.warmup_steps, self.trainer.max_steps, self.lr_floor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def gist_statistics(gists: Tensor) -> dict[str, Tensor]:
    """How large the gists ``(U, K, D)`` are, and how different those of different tools."""
    flat = torch.nn.functional.normalize(gists.mean(1), dim=-1)
    return {
        "gist/norm": gists.norm(dim=-1).mean(),
        "gist/std": gists.std(0).mean() if len(gists) > 1 else gists.new_zeros(()),
        "gist/cosine": (flat @ flat.T).mean(),  # 1 = all tools look alike
    }


def opened(gate: Tensor | None) -> float:
    """How far a decoder layer has opened to the gists: tanh of its gate, or 1."""
    return 1.0 if gate is None else float(torch.tanh(whole(gate.detach()).float()))


def clip_gradients(model: torch.nn.Module, limit: float | None) -> Tensor:
    """The norm of all gradients before they are clipped to ``limit``."""
    found = [p for p in model.parameters() if p.grad is not None]
    return whole(torch.nn.utils.clip_grad_norm_(found, limit or float("inf")))


def as_dict(batch: CallBatch) -> dict[str, Any]:
    """A batch as plain containers, which load with ``weights_only``."""
    return {**batch._asdict(), "tools": batch.tools._asdict()}


def freeze_parameters(model: torch.nn.Module, patterns: Sequence[str]) -> None:
    """Only parameters that match none of ``patterns`` are trained."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        optional = pattern.split(".")[0] in OPTIONAL_PARTS  # a model without the part has nothing of it to freeze
        if not optional and not any(fnmatch(name, pattern) for name in names):
            raise ValueError(f"stage.freeze: {pattern!r} matches no parameter; e.g. {names[len(names) // 2]!r} is one")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(fnmatch(name, pattern) for pattern in patterns))


class Encoded(NamedTuple):
    """What the encoder has read of a batch."""

    gists: Tensor  # (U, K, D)
    request: Tensor | None  # (B, K, D) gists of the prompts
    reading: Tensor | None  # (P, D) the prompts, packed


def encode(model: ToolFormerMicro, batch: CallBatch, requests: bool) -> Encoded:
    """The tools, and the prompts if ``requests``, read in one pass without padding."""
    tools, prompts = pack(batch.tools.ids, batch.tools.mask), pack(batch.prompt_ids, batch.prompt_mask)
    if not requests or not prompts.lengths:
        return Encoded(model.pool(model.read_packed(tools), batch.tools.mask), None, None)
    read, width = model.read_packed(tools + prompts), max(tools.lengths + prompts.lengths)
    masks = [F.pad(mask, (0, width - mask.shape[1])) for mask in (batch.tools.mask, batch.prompt_mask)]
    gists, request = model.pool(read, torch.cat(masks)).split([len(tools.lengths), len(prompts.lengths)])
    return Encoded(gists, request, read[len(tools.ids) :])


def schema_rows(tools: ToolBatch) -> tuple[Pack, Tensor]:
    """What the decoder rebuilds, packed, and which gists each token sees, ``(N, U)``: those of its own tool."""
    rows = pack(tools.rebuild_ids, tools.rebuild_mask)
    return rows, rows.rows[:, None] == torch.arange(len(tools.ids), device=rows.ids.device)


def needed_tools(batch: CallBatch) -> Tensor:
    """Which of the U tools each request calls: ``(B, U)`` bool."""
    needed = torch.zeros(len(batch.tool_index), len(batch.tools.ids), dtype=torch.bool, device=batch.tool_index.device)
    rows, places = (batch.call_targets > 0).nonzero(as_tuple=True)
    needed[rows, batch.tool_index[rows, batch.call_targets[rows, places] - 1]] = True
    return needed


def offered_tools(batch: CallBatch) -> Tensor:
    """Which of the U tools each request offers: ``(B, U)`` bool."""
    offered = torch.zeros(
        len(batch.tool_index), len(batch.tools.ids) + 1, dtype=torch.bool, device=batch.tool_index.device
    )
    offered.scatter_(1, batch.tool_index % offered.shape[1], True)  # -1 lands in the last column, which is dropped
    return offered[:, :-1]
