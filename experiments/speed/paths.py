"""In: inputs and a plan. Out: rows of what was measured, of one path in one dtype: ours, published, or text.

A row has ``path``, ``dtype``, ``what`` was measured, with how many ``tools``, all ``samples`` in milliseconds and
whether a warm-up came before; ``flops`` and ``bytes`` are counted, ``peak_bytes`` measured. A ``note`` stands where
there is no number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm
from transformers import DynamicCache, GenerationConfig
from transformers.generation.streamers import BaseStreamer

from experiments.speed import counting, published
from experiments.speed.clock import Ticks, peak, rates, samples
from experiments.speed.inputs import Inputs, our_model, plain_model, prefer_calls
from toolformer.inference.engine import Decoding, Engine, Request
from toolformer.inference.gist_store import GistStore, gist_fingerprint
from toolformer.model import ToolFormerConfig
from toolformer.records import Tool

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long at most.

    Attributes:
        shape: of the whole backbone.
        real: real tools and tokenizer, else built-in ones.
        tools: numbers of tools on offer.
        encode: numbers of tools encoded together.
        tokens_at: numbers of tools at which whole answers are written.
        new_tokens: of an answer.
        slow: the most tools on offer that the other two paths are measured with, by path and dtype, and what.
        batch: requests answered together, beside one.
        seconds: for the repeats of one measurement.
        repeats: at most.
        product: rows of the square matrix product.
    """

    shape: dict[str, Any]
    real: bool
    tools: tuple[int, ...]
    encode: tuple[int, ...]
    tokens_at: tuple[int, ...]
    new_tokens: int
    slow: dict[str, int]
    batch: int
    seconds: float
    repeats: int
    product: int


class Measuring:
    """One path in one dtype: what it shares, and the rows so far."""

    def __init__(self, path: str, dtype: str, device: str, plan: Plan, inputs: Inputs):
        self.path, self.dtype_name, self.plan, self.inputs = path, dtype, plan, inputs
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.prompt = inputs.prompts.prompt(inputs.request)
        self.rows: list[Row] = []
        most = plan.slow.get(f"{path} {dtype}", max(plan.tools))
        self.sizes = [count for count in plan.tools if count <= most]  # numbers of tools on offer
        self.bar = tqdm(desc=f"{path} {dtype}", unit="measurement")
        for count in plan.tools:
            if count > most:
                self.add("first", count, note="not measured: minutes")

    def add(self, what: str, tools: int, **found: Any) -> None:
        """A row."""
        self.rows.append({"path": self.path, "dtype": self.dtype_name, "what": what, "tools": tools, **found})
        self.bar.update()

    def done(self) -> list[Row]:
        """All rows."""
        self.bar.close()
        return self.rows

    def time(self, what: str, tools: int, work: Callable[[], object], *, share: float = 1.0, **found: Any) -> None:
        """Repeats, and adds the row."""
        self.bar.set_postfix_str(f"{what}, {tools} tools")
        with peak(self.device) as memory:
            spent, warm = samples(work, self.device, seconds=share * self.plan.seconds, most=self.plan.repeats)
        self.add(what, tools, samples=spent, warm_up=warm, peak_bytes=memory.bytes, **found)

    def write(self, tools: int, answer: Callable[[Ticks], object], new: int, what: str = "token", **found: Any) -> None:
        """Adds the row of whole answers: each sample is the times between the tokens of one."""
        self.bar.set_postfix_str(f"{what}, {tools} tools")
        answers: list[list[float]] = []
        with peak(self.device) as memory:
            for attempt in range(1 + self.plan.repeats):
                answer(ticks := Ticks(self.device))
                assert len(ticks.tokens) == new, f"{self.path}: {len(ticks.tokens)} tokens were written, not {new}"
                answers.append(ticks.between)
                spent = sum(map(sum, answers)) / 1e3
                if spent + spent / (attempt + 1) > self.plan.seconds:
                    break
        kept = answers[1:] or answers  # the first is the warm-up
        extra = {"ids": ticks.tokens, "answers": kept, "samples": [x for times in kept for x in times]}
        self.add(what, tools, **extra, warm_up=len(answers) > 1, peak_bytes=memory.bytes, **found)


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(dtype: str, device: str, plan: Plan, inputs: Inputs) -> list[Row]:
    """The engine with its gists; and what the machine can do in this dtype."""
    m = Measuring("ours", dtype, device, plan, inputs)
    for name, rate in rates(m.device, m.dtype, size=plan.product, seconds=plan.seconds / 4).items():
        m.add("rate", 0, name=name, rate=rate)
    model = our_model(plan.shape, inputs.prompts, m.dtype, m.device)
    config, all_tools = model.config, inputs.tools
    assert isinstance(config, ToolFormerConfig)
    writer = Engine(model, inputs.prompts, batch_size=plan.batch, max_new_tokens=plan.new_tokens)
    pairs = Engine(model, inputs.prompts, batch_size=1, max_new_tokens=plan.new_tokens // 2)
    first = Engine(model, inputs.prompts, batch_size=1, max_new_tokens=1)
    gists = torch.empty(0)

    def encode(count: int) -> None:
        nonlocal gists
        gists = writer.encode(all_tools[:count])

    for count in plan.encode:
        lengths = [len(schema) for schema in inputs.schemas(count)]
        work = {"flops": counting.encode(config, lengths), "lengths": sum(lengths)}
        m.time("encode", count, lambda count=count: encode(count), share=2, **work)
    # more tools than were encoded: gists are used again, as their values do not matter here
    gists = gists.repeat(-(-len(all_tools) // len(gists)), 1, 1)[: len(all_tools)]
    _store(m, model, gists)

    def request(count: int) -> Request:
        return Request(inputs.request, all_tools[:count], gists[:count])

    for count in m.sizes:
        asked, slots = request(count), count * config.num_gists
        read = {"pairs": counting.causal(len(m.prompt)), "slots": slots, "projected": slots}
        flops = counting.decode(config, len(m.prompt), **read)
        m.time("first", count, lambda asked=asked: first.answer([asked], "free"), flops=flops)
        m.time("first, a tool changed", count, lambda count=count: _changed(first, request(count), all_tools[-1]))
    for count in plan.tokens_at:
        numbers = counting.token_numbers(config, len(m.prompt) + plan.new_tokens // 2, count * config.num_gists)
        m.write(count, _writes(writer, request(count), "free"), plan.new_tokens, bytes=numbers * m.dtype.itemsize)
    _together(m, writer, [request(min(plan.tokens_at))] * plan.batch)
    prefer_calls(model, inputs)
    for count in plan.tokens_at:
        _constrained(m, pairs, request(count))
    return m.done()


def _changed(engine: Engine, request: Request, new: Tool) -> None:
    """A tool in the middle gives way to another, which is encoded; then the request is answered."""
    place = len(request.tools) // 2
    tools, gists = list(request.tools), request.gists.clone()
    tools[place], gists[place] = new, engine.encode([new])[0]
    engine.answer([Request(request.messages, tools, gists)], "free")


def _writes(engine: Engine, request: Request, decoding: Decoding) -> Callable[[Ticks], object]:
    return lambda ticks: engine.answer([request], decoding, on_token=lambda row, token: ticks(token))


def _store(m: Measuring, model: Any, gists: torch.Tensor) -> None:
    """Gists into a store and out of it."""
    tools = m.inputs.tools[: max(m.plan.encode)]
    with tempfile.TemporaryDirectory() as folder:
        store = GistStore(folder, gist_fingerprint(model, m.inputs.prompts))
        store.add_many(tools, list(gists[: len(tools)]))
        m.time("from the store", len(tools), lambda: store.get_many(tools))
        store.close()


def _together(m: Measuring, engine: Engine, requests: Sequence[Request]) -> None:
    """Many requests at once: the time of a step, in which each of them gets a token."""
    one = Engine(engine.model, engine.prompts, batch_size=len(requests), max_new_tokens=1)
    m.time(f"first, batch of {len(requests)}", len(requests[0].tools), lambda: one.answer(requests, "free"))
    m.time(f"answers, batch of {len(requests)}", len(requests[0].tools), lambda: engine.answer(requests, "free"),
           requests=len(requests), new_tokens=m.plan.new_tokens)  # fmt: skip


def _constrained(m: Measuring, engine: Engine, request: Request) -> None:
    """Free and constrained answers in turn, so that what else the machine does meets both."""
    means: dict[Decoding, list[float]] = {"free": [], "constrained": []}
    m.bar.set_postfix_str(f"constrained, {len(request.tools)} tools")
    for _ in range(1 + m.plan.repeats):
        for decoding, found in means.items():
            _writes(engine, request, decoding)(ticks := Ticks(m.device))
            if decoding == "constrained" and ticks.tokens[0] != m.inputs.prompts.call_open:
                raise AssertionError("the constrained answer is no call, so no schema constrained it")
            found.append(sum(ticks.between) / len(ticks.between))
        spent = sum(map(sum, means.values())) * len(ticks.tokens) / 1e3
        if len(means["free"]) > 3 and spent > 2 * m.plan.seconds:
            break
    pairs = {f"{decoding}_ms": found[1:] for decoding, found in means.items()}
    overhead = [b / a - 1 for a, b in zip(*pairs.values(), strict=True)]
    m.add("constrained overhead", len(request.tools), overhead=overhead, **pairs, tokens=len(ticks.tokens))


# --- the published manner ---------------------------------------------------------------------------------------------


def published_manner(dtype: str, device: str, plan: Plan, inputs: Inputs) -> list[Row]:
    """The same weights without any of what makes ours fast."""
    m = Measuring("published", dtype, device, plan, inputs)
    model = our_model(plan.shape, inputs.prompts, m.dtype, m.device)
    limit = inputs.prompts.schema_limit

    def answer(ticks: Callable[[int], object], count: int, new: int) -> None:
        schemas = inputs.schemas(count)
        published.answer(model, m.prompt, schemas, limit=limit, new_tokens=new, on_token=ticks)

    for count in plan.encode:
        if count <= max(m.sizes):
            with torch.inference_mode():
                m.time("encode", count, lambda n=count: published.encode(model, inputs.schemas(n), limit), share=2)
    for count in m.sizes:
        m.time("first", count, lambda n=count: answer(lambda token: None, n, 1))
    for count in plan.tokens_at:
        if count <= max(m.sizes) and count == min(plan.tokens_at):
            m.write(count, lambda ticks, n=count: answer(ticks, n, plan.new_tokens), plan.new_tokens)
    return m.done()


# --- schemas as text --------------------------------------------------------------------------------------------------


class _Told(BaseStreamer):
    """Hands a generation's tokens to a clock; what comes first is the prompt."""

    def __init__(self, ticks: Ticks):
        self.ticks, self.prompt = ticks, True

    def put(self, value: torch.Tensor) -> None:
        """Called by the library."""
        if not self.prompt:
            self.ticks(int(value))
        self.prompt = False

    def end(self) -> None:
        """Called by the library."""


def text(dtype: str, device: str, plan: Plan, inputs: Inputs) -> list[Row]:
    """The whole backbone reads all schemas in its prompt, without a prefix cache, and with one."""
    m = Measuring("text", dtype, device, plan, inputs)
    model = plain_model(plan.shape, m.dtype, m.device)
    generator: Any = model  # the library's types do not agree with each other
    context = model.config.max_position_embeddings

    def generate(ids: list[int], cache: DynamicCache, new: int = 1, ticks: Ticks | None = None) -> int:
        settings = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=None, pad_token_id=0)
        whole = torch.tensor([ids], device=m.device)
        told = None if ticks is None else _Told(ticks)
        out = generator.generate(
            whole, attention_mask=torch.ones_like(whole), past_key_values=cache, generation_config=settings,
            streamer=told,
        )  # fmt: skip
        return int(out[0, len(ids)])

    for count in m.sizes:
        tools = inputs.tools[:count]
        changed = [*tools[: count // 2], inputs.tools[-1], *tools[count // 2 + 1 :]]
        prefix, other = inputs.text(tools), inputs.text(changed)
        length = len(prefix) + len(m.prompt) + plan.new_tokens
        if length > context:
            m.add("first", count, note=f"cannot: {length:,} tokens, the context is {context:,}")
            continue
        ids, kept, found = [*prefix, *m.prompt], [DynamicCache()], []

        def cold(ids: list[int] = ids, kept: list = kept, found: list = found) -> None:
            kept[:] = [DynamicCache()]
            found[:] = [generate(ids, kept[0])]

        def warm(ids: list[int], keep: int, kept: list = kept) -> int:
            kept[0].crop(keep - kept[0].get_seq_length())
            return generate(ids, kept[0])

        flops = counting.read(model.config, len(ids), counting.causal(len(ids)), model.config.num_hidden_layers)
        m.time("first", count, cold, flops=flops + counting.head(model.config), length=len(ids))
        keep = len(prefix)
        m.time("first, prefix cached", count, lambda a=ids, n=keep: warm(a, n))
        if dtype == "float32" and warm(ids, len(prefix)) != found[0]:
            raise AssertionError(f"text: with its prefix cached it says another first token at {count} tools")
        if count in plan.tokens_at:

            def write(ticks: Ticks, ids: list[int] = ids, keep: int = keep, kept: list = kept) -> None:
                kept[0].crop(keep - kept[0].get_seq_length())
                generate(ids, kept[0], plan.new_tokens, ticks)

            numbers = counting.text_numbers(model.config, len(ids) + plan.new_tokens // 2)
            m.write(count, write, plan.new_tokens, bytes=numbers * m.dtype.itemsize)
        if count > plan.slow.get(f"text {dtype}, a tool changed", count):
            m.add("first, a tool changed", count, note="not measured: minutes")
            continue
        same = next(i for i, (a, b) in enumerate(zip(prefix, other, strict=False)) if a != b)
        m.time("first, a tool changed", count, lambda b=[*other, *m.prompt], n=same: warm(b, n), reused=same)
    return m.done()


PATHS: dict[str, Callable[[str, str, Plan, Inputs], list[Row]]] = {
    "ours": ours,
    "published": published_manner,
    "text": text,
}
