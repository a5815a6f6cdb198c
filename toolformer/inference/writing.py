"""In: a request, and the token or the tool that is chosen at each point. Out: what may come next, and the answer.

The rules of one answer, whatever computes the model behind them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from torch import Tensor

from toolformer.calls import Malformed, parse, render
from toolformer.data.batches import ALL
from toolformer.records import Message, Tool, ToolCall
from toolformer.schemas import filled, gaps

if TYPE_CHECKING:
    from toolformer.inference.engine import Engine

Decoding = Literal["free", "constrained", "pointed"]
DECODINGS: tuple[Decoding, ...] = ("free", "constrained", "pointed")
NAMED = re.compile(r'^\s*\{"name": ("(?:[^"\\]|\\.)*")')  # a call that has told the name of its tool
OnToken = Callable[[int, int], Any]


class Request(NamedTuple):
    """A conversation, the tools its answer may use, and the gists ``(N, K, D)`` that stand for them."""

    messages: Sequence[Message]
    tools: Sequence[Tool]
    gists: Tensor


@dataclass
class Answer:
    """What was written. ``choices`` holds the pointer's probabilities (no call first) at each decision it took.

    ``asked`` names the required parameters that drafts had no value for; ``tokens`` still has the drafts, ``text`` not.
    ``unread`` says why a request was not even read; of one that was, it is empty.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    choices: list[list[float]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    unread: str = ""

    @property
    def said(self) -> list[ToolCall] | Malformed:
        """The calls of the text; a request that was not read counts as malformed."""
        return Malformed(self.unread, 0) if self.unread else parse(self.text)


class Row:
    """One answer while it is written.

    ``unread`` are the tokens that the decoder has yet to read, each with the place of the tool whose gists alone it
    looks at, or ``ALL``: as in training (``data.batches``).
    """

    def __init__(self, engine: Engine, place: int, request: Request, decoding: Decoding, on_token: OnToken | None):
        self.engine, self.place, self.request, self.on_token = engine, place, request, on_token
        config = engine.model.config
        self.forms, self.points = config.forms != "none", decoding == "pointed"
        self.focuses = config.focus
        self.decides = self.points or (self.focuses and decoding == "free")  # whether the pointer is asked
        self.prompt = engine.prompts.prompt(request.messages, room=engine.max_new_tokens)
        self.answer = Answer()
        self.matcher: Any = None
        self.constrained = decoding == "constrained"
        self.calls, self.called = 0, set[int]()  # how many, and the places of their tools
        self.focus, self.opened, self.ended = ALL, -1, False
        self.places: tuple[int, ...] = ()  # of its tools among those that are projected
        self.unread: list[tuple[int, int]] = []

    def begin(self, nearest: int) -> None:
        """The prompt is to be read, in view of one tool or of all."""
        if self.constrained:
            self.matcher = self.engine.grammar.choice(self.request.tools, self.engine.most_calls)
        self.focus = nearest
        self.unread = [(token, nearest) for token in self.prompt]

    @property
    def starts(self) -> bool:
        """Whether the pointer is to be asked: a call may start here."""
        if not self.decides or self.ended or self.calls > self.engine.most_calls:
            return False
        tokens = self.answer.tokens
        return not tokens or tokens[-1] == self.engine.prompts.call_close

    def decide(self, shares: list[float]) -> None:
        """Takes the pointer's probabilities, no call first: the tool or none, and the grammar of that choice."""
        tools, grammar = self.request.tools, self.engine.grammar
        nearest = max(range(len(tools)), key=shares[1:].__getitem__, default=ALL)
        self.called |= {nearest} - {ALL}
        if self.focuses:
            self.focus = nearest
        if not self.points:
            self.calls += 1
            return
        self.answer.choices.append(shares)
        pick = max(range(len(shares)), key=shares.__getitem__)
        if pick and self.calls < self.engine.most_calls:
            self.matcher = grammar.call(tools[pick - 1], first=self.calls == 0)
            self.calls += 1
        else:
            asked = self.calls and self.forms and self._drafted()
            self.matcher = grammar.reply(first=not asked) if asked or self.calls == 0 else None
            self.calls = self.engine.most_calls + 1  # no further decision

    @property
    def over(self) -> bool:
        """Whether nothing but the end may come: pointed, and the last call is closed."""
        return self.points and self.matcher is None and not self.starts

    def forced(self) -> list[int]:
        """The tokens that come next whatever the model says; the grammar spells most of a call."""
        if self.ended:
            return []
        if self.over:
            return [self.engine.prompts.end]
        return [] if self.matcher is None else self.matcher.compute_ff_tokens()

    def push(self, token: int) -> None:
        """Writes a token down."""
        answer, prompts = self.answer, self.engine.prompts
        answer.tokens.append(token)
        if self.on_token is not None:
            self.on_token(self.place, token)
        answer.finished = token == prompts.end
        self.ended = answer.finished or len(answer.tokens) == self.engine.max_new_tokens
        if self.ended:
            self.matcher = None
            return
        if self.matcher is not None:
            self.matcher.consume_token(token)
        closes = token == prompts.call_close
        if closes and self.points:
            self.matcher = None
        if self.constrained and self.focuses:
            self._look_at_named(token)
        self.unread.append((token, ALL if closes else self.focus))  # the next decision is made in view of all tools

    def push_forced(self) -> None:
        """Writes down all that is forced here."""
        while tokens := self.forced():
            for token in tokens:
                if not self.ended:
                    self.push(token)

    def _look_at_named(self, token: int) -> None:
        """Once a call has named its tool, the row looks at that tool alone until the call is closed."""
        if token == self.engine.prompts.call_close:
            self.focus, self.opened = ALL, -1
        elif self.opened < 0 and token == self.engine.prompts.call_open:
            self.opened = len(self.answer.tokens)
        elif self.opened >= 0 and self.focus == ALL:
            name = NAMED.search(self._text(self.answer.tokens[self.opened :]))
            if name is not None:
                self.focus = [tool.name for tool in self.request.tools].index(json.loads(name[1]))

    def _drafted(self) -> bool:
        """Whether the call just written lacks a value."""
        calls = parse(self._calls(self.answer.tokens)[-2])
        by_name = {tool.name: tool for tool in self.request.tools}
        return not isinstance(calls, Malformed) and any(gaps(call, by_name[call.name]) for call in calls)

    def settle(self) -> Answer:
        """The text of the answer: of forms the calls that they stand for; of drafts what was said after them."""
        answer = self.answer
        tokens = answer.tokens[:-1] if answer.finished else answer.tokens
        answer.text = self._text(tokens)
        if not self.forms:
            return answer
        by_name = {tool.name: tool for tool in self.request.tools}
        made, (*closed, rest) = [], self._calls(tokens)
        for written in closed:
            calls = parse(written)
            if isinstance(calls, Malformed) or any(call.name not in by_name for call in calls):
                made.append(written.strip())
            else:
                lacking = [key for call in calls for key in gaps(call, by_name[call.name])]
                made += [] if lacking else [render([filled(call, by_name[call.name]) for call in calls])]
                answer.asked += lacking
        rest = rest.strip()
        if closed:
            answer.text = "\n".join([*made, *([] if made and (answer.asked or not rest) else [rest])])
        return answer

    def _calls(self, tokens: list[int]) -> list[str]:
        """The text of each closed call, and what stands behind; an argument may hold the mark as text."""
        ends = [i + 1 for i, token in enumerate(tokens) if token == self.engine.prompts.call_close]
        return [self._text(tokens[start:end]) for start, end in zip([0, *ends], [*ends, len(tokens)], strict=True)]

    def _text(self, tokens: list[int]) -> str:
        return str(self.engine.prompts.tokenizer.decode(tokens, skip_special_tokens=False))
