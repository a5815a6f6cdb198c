"""In: several Runs. Out: one page that sets them side by side, each against the first, on the same rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from toolformer.reporting.html import Raw, document, flat, html_table
from toolformer.reporting.loading import Run, load_run
from toolformer.reporting.page import interval_cell
from toolformer.reporting.tables import GAP, Cell, cells, number, split_title
from toolformer.reporting.verdict import verdict

METRICS = {"tsa": "TSA", "em": "EM", "pf1": "PF1", "fpr": "FPR"}
Place = tuple[str, str, str]  # split, variant, decoding
Outcomes = Mapping[Place, Mapping[str, Mapping[str, Any]]]  # place -> row id -> outcome


def write_comparison(folders: Sequence[Path | str], out: Path) -> Path:
    """Writes ``<out>/index.html`` that compares the runs; returns its path."""
    runs = [load_run(folder) for folder in folders]
    page = out / "index.html"
    page.write_text(comparison_page(runs, out), encoding="utf-8")
    return page


def outcomes(run: Run) -> Outcomes:
    """What every row got with the model's own gists."""
    found: dict[Place, dict[str, Mapping[str, Any]]] = {}
    for row in run.rows():
        if row.get("memory", "real") == "real":
            found.setdefault((row["split"], row["variant"], row["decoding"]), {})[row["id"]] = row["outcome"]
    return found


def paired(first: Mapping[str, Any], second: Mapping[str, Any], metric: str) -> tuple[list[float], list[float]]:
    """Both runs' values of one metric on the rows that both have and that it applies to."""
    key = "fp" if metric == "fpr" else metric
    ids = [i for i in first if i in second and first[i].get(key) is not None and second[i].get(key) is not None]
    return [float(first[i][key]) for i in ids], [float(second[i][key]) for i in ids]


def difference(first: Mapping[str, Any], second: Mapping[str, Any], metric: str) -> str:
    """The second run minus the first with its test: McNemar for rates, a paired bootstrap for the mean F1 of a row."""
    from toolformer.metrics import mcnemar, paired_bootstrap

    a, b = paired(first, second, metric)
    if not a:
        return "no rows in common"
    if metric == "pf1":
        gain = paired_bootstrap(a, b, seed=0)
        return f"{gain.value:+.3f} per row, p {gain.p:.2g}, n {len(a)}"
    test = mcnemar([x == 1 for x in a], [x == 1 for x in b])
    return f"{(sum(b) - sum(a)) / len(a):+.3f}, p {test.p:.2g}, n {len(a)}"


def comparison_page(runs: Sequence[Run], out: Path) -> str:
    """The HTML of a comparison."""
    names = " / ".join(run.name for run in runs)
    body = [
        "<h1>Runs compared</h1>",
        f'<p class="quiet">Differences are against {escape(runs[0].name)} on the same rows: McNemar\'s exact test for '
        "rates, a paired bootstrap for PF1 (mean over rows). One seed per run says nothing about other seeds.</p>",
        html_table(("run", "does it read its gists?", "", "report"), [verdict_row(run, out) for run in runs]),
        differing(runs),
        *missing(runs),
        *metric_tables(runs),
    ]
    return document(f"{names}: runs compared", "\n".join(body))


def verdict_row(run: Run, out: Path) -> list[object]:
    """A run's verdict and the way to its own report."""
    judged = verdict(run.metrics)
    page = run.folder / "report" / "index.html"
    link = f'<a href="{escape(os.path.relpath(page, out))}">report</a>' if page.is_file() else GAP
    return [Raw(f"<b>{escape(run.name)}</b>"), judged.title, Raw(f"<p>{escape(judged.sentence)}</p>"), Raw(link)]


def differing(runs: Sequence[Run]) -> str:
    """The settings in which the runs differ."""
    settings = [dict(flat(run.settings)) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [
        (key, *(str(one.get(key, "unset")) for one in settings))
        for key in keys
        if len({str(one.get(key, "unset")) for one in settings}) > 1
    ]
    if not rows:
        return "<p>Their settings do not differ.</p>"
    return "<h2>Settings that differ</h2>" + html_table(("setting", *(run.name for run in runs)), rows)


def missing(runs: Sequence[Run]) -> list[str]:
    """What cannot be compared, said."""
    lines = [f"{run.name}: {what}" for run in runs for what in run.missing]
    prints = {str(run.metrics["provenance"].get("fingerprint")) for run in runs if run.metrics.get("provenance")}
    if len(prints) > 1:
        lines.append(f"the runs were evaluated on different data (fingerprints {', '.join(sorted(prints))})")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return [f'<section class="absent"><b>Mind</b><ul>{items}</ul></section>'] if lines else []


def metric_tables(runs: Sequence[Run]) -> list[str]:
    """One table per metric: a row per split, names and decoding; a column per run with its difference to the first."""
    by_run: list[dict[Place, Cell]] = [
        {(c.split, c.variant, c.decoding): c for c in cells(run.metrics) if c.memory == "real"} for run in runs
    ]
    places = list(dict.fromkeys(place for found in by_run for place in found))
    rows_of = [outcomes(run) for run in runs]
    parts = []
    for metric, title in METRICS.items():
        rows: list[list[object]] = []
        for place in places:
            row: list[object] = [split_title(place[0]), *place[1:]]
            known = [number(found[place].summary, metric) if place in found else None for found in by_run]
            if not any(value is not None for value in known):
                continue
            for index, found in enumerate(by_run):
                cell = interval_cell(found[place].summary if place in found else None, metric)
                if index and cell != GAP:
                    change = difference(rows_of[0].get(place, {}), rows_of[index].get(place, {}), metric)
                    cell = Raw(f"{cell}<br><small>{escape(change)}</small>")
                row.append(cell)
            rows.append(row)
        if rows:
            head = ("split", "names", "decoding", *(run.name for run in runs))
            parts.append(f"<h2>{title}</h2>" + html_table(head, rows))
    return parts
