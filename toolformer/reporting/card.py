"""In: the description of a corpus (corpus.json). Out: its data card beside it: card.md, and card.html with plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from toolformer.reporting.html import Picture, document, figures_html, html_table
from toolformer.reporting.tables import SPLITS, in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from toolformer.reporting.theme import Theme

Info = Mapping[str, Any]
WORDS = {
    "train": "trained on; what a row offers is chosen batch by batch",
    "validation": "for choices made while training; some of its tools are never trained on",
    "test_seen": "tools trained on, new requests",
    "test_held_out": "tools trained on, ways of asking that were not",
    "test_unseen": "tools never trained on: no id, no name, no nearly equal schema",
    "test_bfcl": "the Berkeley leaderboard's rows, with the tools that they come with",
}


class Section(NamedTuple):
    """A table under a title, with a sentence that says what it shows."""

    title: str
    said: str
    head: tuple[str, ...]
    rows: list[list[str]]


def write_card(folder: Path | str, info: Info) -> Path:
    """Writes both files, the page last; returns its path."""
    from toolformer.reporting.theme import DARK, LIGHT, png

    folder = Path(folder)
    both = [figures(info, theme) for theme in (LIGHT, DARK)]
    pictures = [
        Picture(f"card-{name}", *CAPTIONS[name], png(figure), png(both[1][name])) for name, figure in both[0].items()
    ]
    for name, text in (("card.md", markdown(info)), ("card.html", page(info, pictures))):
        part = folder / f".{name}"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
    return folder / "card.html"


def opening(info: Info) -> str:
    """What the corpus is, in two sentences."""
    rows, aside = sum(info["rows"].values()), sum(sum(s["set_aside"].values()) for s in info["sources"])
    return (
        f"{len(info['sources'])} sources, {rows:,} rows in {len(info['rows'])} splits, {info['tools']:,} tools; "
        f"{aside:,} rows were set aside, each with its place and reason (set_aside.parquet). "
        f"Fingerprint {info['fingerprint']}."
    )


def markdown(info: Info) -> str:
    """The card as Markdown."""
    lines = [f"# Data card: {info['name']}", "", opening(info)]
    for section in sections(info):
        lines += [
            "",
            f"## {section.title}",
            "",
            section.said,
            "",
            _line(section.head),
            _line(["---"] * len(section.head)),
        ]
        lines += [_line(row) for row in section.rows]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def page(info: Info, pictures: Sequence[Picture]) -> str:
    """The card as one page that needs no other file."""
    body = [f"<h1>{escape(info['name'])}</h1>", '<p class="quiet">ToolFormerMicro data card</p>']
    body += [f"<section><p>{escape(opening(info))}</p></section>", f"<section>{figures_html(pictures)}</section>"]
    for section in sections(info):
        table = html_table(section.head, section.rows)
        body.append(f"<section><h2>{escape(section.title)}</h2><p>{escape(section.said)}</p>{table}</section>")
    return document(f"{info['name']}: data card", "\n".join(body))


# --- tables -----------------------------------------------------------------------------------------------------------


def sections(info: Info) -> Iterator[Section]:
    """All tables, in reading order."""
    splits = in_order(info["rows"], ("train", *SPLITS))
    yield _sources(info, splits)
    yield _splits(info, splits)
    yield _strata(info, splits)
    yield _tools(info)
    yield _lengths(info, splits)
    yield _arguments(info, splits)
    yield _set_aside(info)
    yield _audit(info)
    rules = [[key, str(value)] for key, value in info["rules"].items()]
    yield Section("Rules", "How rows became splits and got their tools.", ("rule", "value"), rules)


def _sources(info: Info, splits: Sequence[str]) -> Section:
    rows = []
    for source in info["sources"]:
        counts = [sum(source["rows"].get(split, {}).values()) for split in splits]
        flags = {"evaluates only": source["evaluates_only"], "no arguments": source["selects_only"]}
        said = ", ".join(flag for flag, true in flags.items() if true)
        name = f"[{source['name']}]({source['url']})" if source["url"] else source["name"]
        aside = sum(source["set_aside"].values())
        rows.append([name, source["licence"], f"{source['rows_there']:,}", *map(_count, counts), _count(aside), said])
    head = ("source", "licence", "rows there", *splits, "set aside", "")
    return Section("Sources", "Each row that was there is in one split or was set aside.", head, rows)


def _splits(info: Info, splits: Sequence[str]) -> Section:
    rows = [[split, f"{info['rows'][split]:,}", WORDS.get(split, "")] for split in splits]
    return Section("Splits", "What each split is for.", ("split", "rows", "tools and requests"), rows)


def _strata(info: Info, splits: Sequence[str]) -> Section:
    names = sorted({name for found in info["strata"].values() for name in found})
    rows = [[name, *(_count(info["strata"][split].get(name, 0)) for split in splits)] for name in names]
    said = "Rows with a call are call or, of unseen tools, same_domain, new_domain, new_source; the others need none."
    return Section("Strata", said, ("stratum", *splits), rows)


def _tools(info: Info) -> Section:
    rows = []
    for use, found in info["statistics"]["tools"].items():
        sources = ", ".join(f"{count:,} {name}" for name, count in found["sources"].items())
        lengths = [_spread(info, found["characters"]), _spread(info, found["parameters"])]
        rows.append([use, f"{sum(found['sources'].values()):,}", f"{found['names']:,}", *lengths, sources])
    head = ("use", "tools", "names", "characters", "parameters", "sources")
    return Section("Tools", f"A tool is its schema, not its name. Lengths: {_points(info)}.", head, rows)


def _lengths(info: Info, splits: Sequence[str]) -> Section:
    rows = []
    for split in splits:
        found = info["statistics"]["splits"][split]
        cells = [_spread(info, found[key]) for key in ("words", "messages", "tools", "arguments")]
        calls = ", ".join(f"{key}{'+' if key == '5' else ''}: {count:,}" for key, count in found["calls"].items())
        rows.append([split, f"{found['looked_at']:,}", *cells, calls])
    head = ("split", "rows looked at", "words", "messages", "tools on offer", "arguments a call", "rows by calls")
    return Section("Lengths", f"Of conversations, offers and calls: {_points(info)}.", head, rows)


def _arguments(info: Info, splits: Sequence[str]) -> Section:
    found = {split: info["statistics"]["splits"][split] for split in splits}
    names = sorted({name for one in found.values() for name in one["argument_types"]})
    rows = [
        [name, *(_share(one["argument_types"].get(name, 0), one["argument_types"]) for one in found.values())]
        for name in names
    ]
    said = [_share(one["said"]["verbatim"], {"": one["said"]["texts"]}) for one in found.values()]
    rows.append(["texts that stand in the request", *said])
    return Section("Arguments", "Types of the arguments that gold gives, in percent.", ("type", *splits), rows)


def _set_aside(info: Info) -> Section:
    rows = []
    for source in info["sources"]:
        for reason, count in sorted(source["set_aside"].items(), key=lambda pair: -pair[1]):
            rows.append([source["name"], reason, f"{count:,}", f"{100 * count / source['rows_there']:.1f}%"])
    return Section("Set aside", "Why rows are in no split.", ("source", "reason", "rows", "of its rows"), rows)


def _audit(info: Info) -> Section:
    audit = info["audit"]
    pairs: dict[str, dict[str, int]] = {}
    for kind in ("requests", "schemas"):
        for key, count in audit[kind].items():
            between, what = key.split(": ")
            pairs.setdefault(f"{kind}, {between}", {})[what] = count
    rows = [[name, str(found["exact"]), str(found["near"])] for name, found in pairs.items()]
    said = (
        f"Pairs of two splits that are the same or nearly so (Jaccard index of 5-token sequences at least "
        f"{audit['near']}); one would have stopped the build. {audit['unseen_tools']:,} tools are asked for unseen; "
        f"{audit['shared_names']} of their names occur in training."
    )
    return Section("Audit", said, ("between", "exact", "near"), rows)


def _count(count: int) -> str:
    return f"{count:,}" if count else ""


def _share(count: int, counts: Mapping[str, int]) -> str:
    return f"{100 * count / sum(counts.values()):.1f}" if count else ""


def _points(info: Info) -> str:
    return "median, 90th percentile, most"


def _spread(info: Info, percentiles: Sequence[int]) -> str:
    at = info["statistics"]["percentiles"]
    return ", ".join(f"{percentiles[at.index(point)]:,}" for point in (50, 90, 100)) if percentiles else ""


# --- figures ----------------------------------------------------------------------------------------------------------

CAPTIONS = {
    "sources": ("Where rows come from", "Rows by source, on a logarithmic scale: trained on, evaluated on, set aside."),
    "words": ("Length of requests", "Words of a conversation by split: percentiles, on a logarithmic scale."),
    "schemas": ("Length of schemas", "Characters of a tool's schema by what it is for: percentiles."),
    "types": ("Types of arguments", "Share of gold's arguments by the type that the schema names."),
}


def figures(info: Info, theme: Theme) -> dict[str, Figure]:
    """All plots of a card."""
    splits = in_order(info["rows"], ("train", *SPLITS))
    found = info["statistics"]
    words = {split: found["splits"][split]["words"] for split in splits}
    schemas = {use: one["characters"] for use, one in found["tools"].items()}
    return {
        "sources": _sources_figure(info, theme),
        "words": _percentiles_figure(words, found["percentiles"], "words of a conversation", theme),
        "schemas": _percentiles_figure(schemas, found["percentiles"], "characters of a schema", theme),
        "types": _types_figure({split: found["splits"][split]["argument_types"] for split in splits}, theme),
    }


def _sources_figure(info: Info, theme: Theme) -> Figure:
    from toolformer.reporting.theme import canvas, label_axes

    figure, axes = canvas(theme, 0.9 + 0.42 * len(info["sources"]))
    series = {"train": theme.blue, "evaluated": theme.orange, "set aside": theme.grey}
    for y, source in enumerate(info["sources"]):
        train = sum(source["rows"].get("train", {}).values())
        counts = [
            train,
            sum(sum(x.values()) for x in source["rows"].values()) - train,
            sum(source["set_aside"].values()),
        ]
        for offset, (count, colour) in enumerate(zip(counts, series.values(), strict=True)):
            axes.barh(y + 0.27 * (offset - 1), count, 0.24, color=colour, label=None if y else list(series)[offset])
    axes.set_yticks(range(len(info["sources"])), [source["name"] for source in info["sources"]])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.grid(False, axis="y")
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    label_axes(axes, theme, "rows")
    return figure


def _percentiles_figure(found: Mapping[str, Sequence[int]], points: Sequence[int], what: str, theme: Theme) -> Figure:
    from toolformer.reporting.theme import canvas, label_axes

    figure, axes = canvas(theme)
    for (name, values), colour in zip(found.items(), theme.series(), strict=False):
        if values:
            axes.plot([max(1, value) for value in values], points, color=colour, marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9, loc="lower right")
    label_axes(axes, theme, what, "percent of them that are at most so long")
    return figure


def _types_figure(found: Mapping[str, Mapping[str, int]], theme: Theme) -> Figure:
    from toolformer.reporting.theme import canvas, label_axes

    names = sorted({name for counts in found.values() for name in counts})
    figure, axes = canvas(theme, 0.9 + 0.3 * len(found))
    for y, counts in enumerate(found.values()):
        left, total = 0.0, sum(counts.values()) or 1
        for name, colour in zip(names, (*theme.series(), theme.ink, theme.muted, theme.grid), strict=False):
            axes.barh(y, counts.get(name, 0) / total, 0.7, left=left, color=colour, label=name if y == 0 else None)
            left += counts.get(name, 0) / total
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.legend(
        frameon=False, labelcolor=theme.ink, fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.16)
    )
    label_axes(axes, theme, "share of the arguments")
    return figure
