"""In: a Run. Out: its page, index.html, and the PNGs beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from toolformer.reporting.answers import answers_html
from toolformer.reporting.html import Picture, Raw, definitions, document, figures_html, html_table
from toolformer.reporting.loading import Run, StageLog, load_run
from toolformer.reporting.tables import (
    COLUMNS,
    GAP,
    Cell,
    Summary,
    cells,
    choice,
    composability_lines,
    controls,
    number,
    rows_line,
    short,
    split_title,
)
from toolformer.reporting.verdict import plain_sentence, verdict

CAPTIONS = {
    "results-tsa": ("The right tool", "Filled: plain names. Hollow: all names replaced by random ones."),
    "results-em": ("The whole call right", "Name and all arguments equal gold's. Filled: plain names. Hollow: masked."),
    "controls-masked": (
        "Does it read its gists? Masked names",
        "Same requests and weights, other gists. A model that reads falls to chance with foreign or zero gists. "
        "Tool removed: how often it calls another tool instead. Diamond: what the pointer picks when it must.",
    ),
    "controls-plain": (
        "The same with plain names",
        "What foreign and zero gists keep above chance is what the names give away.",
    ),
    "scaling": (
        "More tools on offer",
        "Right tool: the needed one is among them. Calls anyway: it is not. Band: 95% interval.",
    ),
    "false-calls": ("Calls where none is wanted", "By kind of request, plain names."),
    "gates": ("Gates", "tanh of each decoder layer's gate: 0 shuts the gists out."),
    "gists": ("Gists of different tools", "Near 1, all tools look the same to the decoder."),
}
TERMS = {
    "TSA": "tool selection accuracy: the names called are exactly gold's, over requests that need a call",
    "EM": "exact match: names and all arguments are gold's, nothing extra",
    "PF1": "F1 over (parameter, value) pairs, all requests counted",
    "VR": "share of gold's values that were given",
    "FPR": "share of requests that need no call and got one, unreadable ones included",
    "free, constrained, pointed": "the model writes freely; a grammar of the tools on offer forces names, keys and "
    "enum values; the gists decide which tool and the grammar spells it",
    "masked": "tool and parameter names replaced by random identifiers, so that names give nothing away",
    "foreign, zero": "gists of other tools, or zeros, under the same request",
}


def write_report(folder: Path | str) -> Path:
    """Writes ``<folder>/report/index.html`` and PNGs; returns the page's path."""
    run = load_run(folder)
    pictures = draw(run)
    text = run_page(run, pictures)  # whatever is wrong with the run shows up here, before anything is written
    out = run.folder / "report"
    out.mkdir(exist_ok=True)
    for picture in pictures:
        (out / f"{picture.name}.png").write_bytes(picture.light)
    page = out / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def draw(run: Run) -> list[Picture]:
    """All figures of a run, light and dark."""
    from toolformer.reporting.curves import training_figures
    from toolformer.reporting.results import result_figures
    from toolformer.reporting.theme import DARK, LIGHT, png

    both = [{**result_figures(run.metrics, t), **training_figures(run.stages, t)} for t in (LIGHT, DARK)]
    return [
        Picture(name, *caption(name, run.stages), png(figure), png(both[1][name])) for name, figure in both[0].items()
    ]


def caption(name: str, stages: Sequence[StageLog]) -> tuple[str, str]:
    """Title and caption of a figure."""
    if name in CAPTIONS:
        return CAPTIONS[name]
    part, index, _ = name.split("-", 2)
    stage = stages[int(index) - 1].title
    if part == "loss":
        return f"Loss: {stage}", "Faint: as logged. Strong: moving average, with its last value. Dots: validation."
    if "validation/nearest" in stages[int(index) - 1].columns:
        return f"Validation: {stage}", "How often the gists nearest to the request are those of a tool it needs."
    return f"Validation: {stage}", "From generated answers on a small fixed set."


def run_page(run: Run, pictures: Sequence[Picture]) -> str:
    """The HTML of one run."""
    judged = verdict(run.metrics)
    body = [
        f'<h1>{escape(run.name)}</h1><p class="quiet">ToolFormerMicro run report</p>',
        f'<section class="verdict {judged.kind}"><h2>{escape(judged.title)}</h2><p>{escape(judged.sentence)}</p>'
        f"<p>{escape(plain_sentence(run.metrics))}</p></section>",
    ]
    if run.missing:
        items = "".join(f"<li>{escape(what)}</li>" for what in run.missing)
        body.append(f'<section class="absent"><b>Missing in this run</b><ul>{items}</ul></section>')
    sections = [
        ("results", "Results", results_html(run, pictures)),
        ("training", "Training", training_html(run, pictures)),
        ("answers", "Wrong answers to read", answers_html(run)),
        ("provenance", "Where the numbers come from", provenance_html(run)),
        ("terms", "What the words mean", definitions(TERMS)),
    ]
    shown = [section for section in sections if section[2]]
    body.append("<nav>" + "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in shown) + "</nav>")
    body += [f'<section id="{key}"><h2>{title}</h2>{content}</section>' for key, title, content in shown]
    return document(f"{run.name}: run report", "\n".join(body))


def interval_cell(summary: Summary | None, metric: str, best: bool = False) -> Raw:
    """A value and its interval, small; bold where it is the best of its block."""
    value, low, high = (number(summary, metric, part) for part in ("value", "low", "high"))
    if value is None:
        return Raw(GAP)
    span = "" if low is None or high is None else f" <small>{short(low)}\u2013{short(high)}</small>"
    return Raw(f'<span class="best">{value:.3f}</span>{span}' if best else f"{value:.3f}{span}")


def results_html(run: Run, pictures: Sequence[Picture]) -> str:
    """Tables and figures of the evaluation; empty where there was none."""
    found = list(cells(run.metrics))
    if not found:
        return ""
    training = ("loss-", "validation-", "gates", "gists")
    parts = [figures_html(p for p in pictures if not p.name.startswith(training))]
    parts.append(html_table(("split", "names", "decoding", *COLUMNS.values()), *real_rows(found)))
    rows = {f"{split_title(c.split)}, {c.variant}": rows_line(c.summary) for c in found if c.memory == "real"}
    items = "".join(f"<li>{escape(f'{place}: {line}')}</li>" for place, line in rows.items())
    parts.append(f"<details><summary>How many requests</summary><ul>{items}</ul></details>")
    judged = list(control_rows(found))
    if judged:
        head = ("split", "names", "decoding", "its gists", "foreign", "zero", "chance", "tool removed: calls anyway")
        note = "; in brackets: the tool the pointer picks when it must call one" if "[" in str(judged) else ""
        parts.append(f"<p>The same requests and weights with other gists (TSA; last column FPR{note}):</p>")
        parts.append(html_table(head, judged, [i for i in range(1, len(judged)) if judged[i][0]]))
    facts = [line for line in composability_lines(run.metrics) if line]
    if facts:
        rows = [line.split("   ", 1) for line in facts]
        parts.append(html_table(("composability", ""), [(left.strip(), right.strip()) for left, right in rows]))
    return "".join(parts)


def real_rows(found: Sequence[Cell]) -> tuple[list[list[object]], list[int]]:
    """Rows of the result table, own gists only, and where its blocks begin."""
    real = [cell for cell in found if cell.memory == "real"]
    rows: list[list[object]] = []
    blocks = []
    for index, cell in enumerate(real):
        group = [c for c in real if (c.split, c.variant) == (cell.split, cell.variant)]
        first = group[0] is cell
        if first and index:
            blocks.append(index)
        values = []
        for metric in COLUMNS:
            known = [v for c in group if (v := number(c.summary, metric)) is not None]
            best = (min if metric == "fpr" else max)(known, default=None)
            values.append(interval_cell(cell.summary, metric, len(known) > 1 and number(cell.summary, metric) == best))
        rows.append([split_title(cell.split) if first else "", cell.variant if first else "", cell.decoding, *values])
    return rows, blocks


def control_rows(found: Sequence[Cell]) -> Iterator[list[object]]:
    """Rows of the control table; split and names only where they change."""
    before: tuple[str, str] | None = None
    for c in controls(found):
        first = before != (c.split, c.variant)
        before = (c.split, c.variant)
        place = [split_title(c.split), c.variant] if first else ["", ""]
        own = [Raw(interval_cell(s, "tsa") + f"<small>{choice(s)}</small>") for s in (c.real, c.foreign, c.zero)]
        yield [*place, c.decoding, *own, c.chance, interval_cell(c.missing, "fpr")]


def training_html(run: Run, pictures: Sequence[Picture]) -> str:
    """Curves of all stages and a line of numbers per stage."""
    if not run.stages:
        return ""
    names = {
        "train/loss": "loss", "validation/tsa": "TSA", "validation/em": "EM", "grad_norm": "gradient norm",
        "gist/norm": "gist norm", "gist/std": "gist std", "gist/cosine": "gist cosine",
        "examples_per_second": "examples/s", "tokens_per_second": "tokens/s",
    }  # fmt: skip
    known = [name for name in names if any(stage.columns.get(name) for stage in run.stages)]
    rows = [
        (
            stage.title,
            f"{stage.steps:,}" + ("" if stage.finished else " (stopped)"),
            *(f"{stage.columns[name][-1][1]:,.4g}" if stage.columns.get(name) else GAP for name in known),
        )
        for stage in run.stages
    ]
    head = ("stage", "steps", *(names[name] for name in known))
    training = [p for p in pictures if p.name.startswith(("loss-", "validation-", "gates", "gists"))]
    return figures_html(training) + "<p>Last logged values:</p>" + html_table(head, rows)


def provenance_html(run: Run) -> str:
    """Commit, seed, fingerprint, command; times; all settings."""
    parts = []
    if run.metrics.get("provenance"):
        parts.append(definitions(run.metrics["provenance"]))
    else:
        parts.append("<p>No provenance was recorded, since nothing was evaluated.</p>")
    if run.metrics.get("calibration"):
        calibration = definitions(run.metrics["calibration"])
        parts.append(f"<details><summary>Calibration of the pointer</summary>{calibration}</details>")
    if run.metrics.get("timing"):
        parts.append(f"<details><summary>Times</summary>{definitions(run.metrics['timing'])}</details>")
    if run.settings:
        parts.append(f"<details><summary>All settings</summary>{definitions(run.settings)}</details>")
    return "".join(parts)
