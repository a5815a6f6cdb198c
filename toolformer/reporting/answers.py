"""In: the wrong answers of a run. Out: HTML to read them, gold beside answer, differences marked, with a filter.

Everything here was said by a model or by data, so every text goes through ``html.escape``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

from toolformer.reporting.html import html_table
from toolformer.reporting.loading import Run
from toolformer.reporting.mistakes import KINDS, PER_GROUP, Answer, kind_of, mistakes
from toolformer.reporting.tables import DECODINGS, SPLITS, VARIANTS, split_title


def answers_html(run: Run) -> str:
    """The wrong answers with their filter; says so where there are none or too many to show."""
    if run.predictions is None:
        return ""
    found = mistakes(run.rows())
    total = sum(found.counts.values())
    if not total:
        return (
            f"<p>None of {found.answers:,} answers is wrong.</p>" if found.answers else "<p>No answer was recorded.</p>"
        )
    options = {
        "split": (SPLITS, {key[0]: split_title(key[0]) for key in found.counts}),
        "names": (VARIANTS, {key[1]: key[1] for key in found.counts}),
        "decoding": (DECODINGS, {key[2]: key[2] for key in found.counts}),
        "kind": (tuple(KINDS), {key[3]: KINDS[key[3]] for key in found.counts}),
    }
    fields = "".join(
        f'<label>{name}<select name="{name}"><option value="">all</option>'
        + "".join(
            f'<option value="{escape(value)}">{escape(titles[value])}</option>'
            for value in sorted(titles, key=lambda v, order=order: (order.index(v) if v in order else 99, v))
        )
        + "</select></label>"
        for name, (order, titles) in options.items()
    )
    note = f"{total:,} of {found.answers:,} answers with the model's own gists are wrong. "
    if total > len(found.shown):
        note += f"Shown: the first {PER_GROUP} of each split, names, decoding and kind, {len(found.shown):,} in all."
    shown = sorted(found.shown, key=lambda row: -SPLITS.index(row["split"]) if row["split"] in SPLITS else 1)
    form = (
        f'<form id="filter" hidden>{fields}<label>text<input name="text" type="search" placeholder="any word"></label>'
        "<output></output></form>"
    )
    more = '<button id="more" type="button" hidden>Show more</button>'
    return f"<p>{note}</p>{form}{kinds_table(found.counts)}{''.join(map(answer_html, shown))}{more}"


def kinds_table(counts: dict[tuple[str, str, str, str], int]) -> str:
    """How many wrong answers there are of each kind, per split, names and decoding."""
    groups: dict[tuple[str, str, str], dict[str, int]] = {}
    for (*group, kind), count in counts.items():
        groups.setdefault((group[0], group[1], group[2]), {})[kind] = count
    rows = [
        (split_title(split), variant, decoding, *(f"{by_kind.get(kind, 0):,}" for kind in KINDS))
        for (split, variant, decoding), by_kind in groups.items()
    ]
    table = html_table(("split", "names", "decoding", *KINDS.values()), rows)
    return f"<details><summary>How many of each kind</summary>{table}</details>"


def value_text(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def marked(gold: str, given: str) -> str:
    """``given`` with what differs from ``gold`` marked; wholly marked where little is shared."""
    matcher = SequenceMatcher(None, gold, given, autojunk=False)
    if matcher.ratio() < 0.5:
        return f"<mark>{escape(given)}</mark>"
    parts = []
    for tag, _, _, start, stop in matcher.get_opcodes():
        text = escape(given[start:stop])
        if tag == "delete":
            parts.append('<mark class="gap"></mark>')
        else:
            parts.append(text if tag == "equal" else f"<mark>{text}</mark>")
    return "".join(parts)


def is_accepted(gold: Answer, key: str, value: Any) -> bool:
    """Whether gold takes this value: types count, so True is not 1."""
    accepted = [gold["arguments"][key], *gold.get("accepted", {}).get(key, [])]
    return value_text(value) in map(value_text, accepted)


def argument_rows(gold: Answer, given: Answer | None) -> list[tuple[str, str, str, str]]:
    """(key, state, gold HTML, given HTML) for the keys of both; state is ok, wrong, missing or extra."""
    ours, theirs = gold["arguments"], given["arguments"] if given else {}
    rows = []
    for key, value in ours.items():
        want = value_text(value)
        more = gold.get("accepted", {}).get(key)
        want_html = escape(want) + (f" <small>or {escape(', '.join(map(value_text, more)))}</small>" if more else "")
        if key not in theirs:
            optional = key in gold.get("omittable", ())
            rows.append((key, "ok" if optional else "missing", want_html, "<i>left out</i>"))
        elif is_accepted(gold, key, theirs[key]):
            rows.append((key, "ok", want_html, escape(value_text(theirs[key]))))
        else:
            rows.append((key, "wrong", want_html, marked(want, value_text(theirs[key]))))
    extra = [key for key in theirs if key not in ours]
    rows += [(key, "extra", "<i>not wanted</i>", f"<mark>{escape(value_text(theirs[key]))}</mark>") for key in extra]
    return rows


def paired(gold: Sequence[Answer], given: Sequence[Answer]) -> list[tuple[Answer | None, Answer | None]]:
    """Gold and given calls side by side: equal names first, then what is left in order."""
    left = list(given)
    pairs: list[tuple[Answer | None, Answer | None]] = []
    alone = []
    for call in gold:
        match = next((other for other in left if other["name"] == call["name"]), None)
        if match is None:
            alone.append(call)
        else:
            left.remove(match)
            pairs.append((call, match))
    for call in alone:
        pairs.append((call, left.pop(0) if left else None))
    return pairs + [(None, call) for call in left]


def call_html(gold: Answer | None, given: Answer | None, absent: str = "no call") -> str:
    """One call of gold against one of the model's, as a table; ``absent`` says what stands where none was answered."""
    wanted = escape(gold["name"]) if gold else "<i>no call</i>"
    if given is None:
        answered = f"<i>{absent}</i>"
    else:
        same = gold is not None and gold["name"] == given["name"]
        name = escape(given["name"])
        answered = name if same else f"<mark>{name}</mark>"
    lines = [f'<tr class="name"><th></th><td>{wanted}</td><td>{answered}</td></tr>']
    empty: Answer = {"arguments": {}}
    if gold is not None and given is not None and gold["name"] != given["name"]:
        # keys of two different tools have nothing to do with each other: each side is shown whole
        sides = [escape(value_text(side["arguments"])) for side in (gold, given)]
        lines.append(f'<tr class="wrong"><th>arguments</th><td>{sides[0]}</td><td>{sides[1]}</td></tr>')
    else:
        lines += [
            f'<tr class="{state}"><th>{escape(key)}</th><td>{want}</td><td>{got if given else ""}</td></tr>'
            for key, state, want, got in argument_rows(gold or empty, given)
        ]
    head = "<tr><th></th><th>wanted</th><th>answered</th></tr>"
    return f'<table class="calls">{head}{"".join(lines)}</table>'


def malformed_text(found: Any) -> str:
    """Why an answer could not be read."""
    return str(found.get("reason", found)) if isinstance(found, Mapping) else str(found)


def answer_html(row: Answer) -> str:
    """One wrong answer: request, what was wanted and given, tools on offer. Attributes serve the filter."""
    kind = kind_of(row)
    assert kind is not None
    tags = {"split": row["split"], "names": row["variant"], "decoding": row["decoding"], "kind": kind}
    data = " ".join(f'data-{name}="{escape(value)}"' for name, value in tags.items())
    told = (row["split"], f"{row['variant']} names", row["decoding"], row.get("stratum", "").replace("_", " "))
    badges = "".join(f"<span>{escape(text)}</span>" for text in told if text)
    if "malformed" in row:
        why = f"<p>Not readable: {escape(malformed_text(row['malformed']))}</p>"
        body = why + f"<pre><mark>{escape(row.get('text', ''))}</mark></pre>"
        body += "".join(call_html(call, None, "not readable") for call in row["gold"])
    else:
        body = "".join(call_html(*pair) for pair in paired(row["gold"], row["predicted"]))
        if not row["predicted"] and row.get("text", "").strip():
            body += f"<p>It said: <q>{escape(row['text'])}</q></p>"
    wanted = {call["name"] for call in row["gold"]}
    tools = "".join(f"<li{' class=wanted' if name in wanted else ''}>{escape(name)}</li>" for name in row["tools"])
    return (
        f'<article {data}><header><b class="{kind}">{KINDS[kind]}</b>{badges}<code>{escape(row["id"])}</code></header>'
        f"<blockquote>{escape(row['request'])}</blockquote>{body}"
        f"<details><summary>{len(row['tools'])} tools on offer</summary><ul>{tools}</ul></details></article>"
    )
