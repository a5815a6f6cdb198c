"""In: settings. Out: what a corpus is made of: how each source is used, how rows become splits and get their tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# A row too much like one of an earlier split here is dropped from the later: tests are kept whole first.
ORDER = ("test_bfcl", "test_unseen", "test_held_out", "test_seen", "validation", "train")
SHARES = ("held_out", "seen", "validation", "validation_tools", "no_call_share", "tool_missing_share")


def check_shares(rules: object, names: Iterable[str]) -> None:
    """Raises ValueError where a field that is a share is below 0, or not less than 1."""
    for name in names:
        if not 0 <= getattr(rules, name) < 1:
            raise ValueError(f"{name} is {getattr(rules, name)}; it must be at least 0 and less than 1")


@dataclass(frozen=True)
class Use:
    """How the rows of one source are used.

    ``folder`` is where they are; ``module`` holds its ``SOURCE``, where that is not toolformer.data.sources.<name>.
    ``tested`` are the upstream splits that are tests; a tool that only they use, and none of ``trained`` (all others
    where empty), is unseen. ``held_back`` of its groups of tools are unseen too. ``split`` is where the rows of a
    source that only evaluates go. ``as_upstream`` leaves the tools on offer as upstream has them;
    ``no_call_as_upstream`` does so where no call is right, as nothing is known of what other tools could do for the
    request. ``tolerance`` is the share of rows that may be set aside when they are read.
    """

    folder: str
    tested: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    held_back: float = 0.0
    split: str = "test_unseen"
    as_upstream: bool = False
    no_call_as_upstream: bool = False
    tolerance: float = 0.02
    module: str = ""

    def __post_init__(self) -> None:
        for name in ("tested", "trained"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("held_back", "tolerance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} of {self.folder} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.split not in ORDER[:2]:
            raise ValueError(f"split of {self.folder} is {self.split}; use one of {', '.join(ORDER[:2])}")


@dataclass(frozen=True)
class Rules:
    """How rows become splits, and which tools are on offer.

    Of each source, ``held_out`` of the request patterns and ``seen`` of the requests are tests, ``validation`` of the
    requests and ``validation_tools`` of the groups of tools are for validation; a small source gives ``least_rows``
    instead, but no more than a tenth. ``most_rows`` is the most that a source gives to an evaluation split, calls and
    rows without a call counted apart. ``no_call_share`` bounds the rows without a call there; ``tool_missing_share`` of
    the calls lose their tools. ``near`` is the Jaccard index (5-token sequences) from which two requests or two schemas
    count as the same. Evaluation rows offer ``tools_per_request`` tools: upstream's own, then distractors in the shares
    of ``distractors``.
    """

    near: float = 0.5
    held_out: float = 0.04
    seen: float = 0.04
    validation: float = 0.03
    validation_tools: float = 0.03
    least_rows: int = 60
    most_rows: int = 400
    no_call_share: float = 0.25
    tool_missing_share: float = 0.08
    tools_per_request: int = 20
    distractors: Mapping[str, float] = field(default_factory=lambda: {"near": 0.35, "same_domain": 0.25, "random": 0.4})
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "distractors", {str(key): float(value) for key, value in self.distractors.items()})
        check_shares(self, SHARES)
        if not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near}; it must be more than 0 and at most 1")
        if not 1 <= self.tools_per_request <= 2000 or self.most_rows < 1:
            raise ValueError(
                f"tools_per_request is {self.tools_per_request} and most_rows {self.most_rows}; "
                "1 to 2000 tools and at least 1 row are possible"
            )
        if self.least_rows > self.most_rows:
            raise ValueError(
                f"least_rows is {self.least_rows} and most_rows {self.most_rows}; the least is the smaller"
            )
        kinds = {"near", "same_domain", "random"}
        if set(self.distractors) != kinds or abs(sum(self.distractors.values()) - 1) > 1e-6:
            raise ValueError(
                f"distractors is {self.distractors}; give shares of {', '.join(sorted(kinds))} that add to 1"
            )

    def part(self, wanted: float, count: int) -> float:
        """The share of a source's ``count`` rows that go to an evaluation split, of ``wanted`` by the rules."""
        return min(max(wanted, self.least_rows / count), self.most_rows / count, max(wanted, 0.1)) if wanted else 0.0
