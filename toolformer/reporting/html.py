"""In: rows, figures and texts. Out: pieces of HTML and the frame of a self-contained page. All text is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple


class Picture(NamedTuple):
    """One figure in both themes. ``name`` is the file name beside the page."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes


class Raw(str):
    """HTML that is already escaped."""


def text(value: object) -> str:
    """A cell's HTML: escaped unless it is ``Raw``."""
    return value if isinstance(value, Raw) else escape(str(value))


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]], blocks: Sequence[int] = ()) -> str:
    """A table that scrolls sideways on a phone; a stronger line stands over the rows numbered in ``blocks``."""
    lines = ["<tr>" + "".join(f"<th>{text(cell)}</th>" for cell in head) + "</tr>"]
    for index, row in enumerate(rows):
        style = ' class="block"' if index in blocks else ""
        lines.append(f"<tr{style}>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def figure_html(picture: Picture) -> str:
    """A figure as data URIs, the dark one where the reader's system is dark."""
    light, dark = (f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in picture[3:])
    return (
        f"<figure><h3>{escape(picture.title)}</h3><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(picture.title)}. {escape(picture.caption)}"></picture>'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def figures_html(pictures: Iterable[Picture]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(map(figure_html, pictures))}</div>'


def definitions(values: Mapping[str, Any]) -> str:
    """Nested settings or provenance as a list of dotted names and values."""
    lines = (f"<dt>{escape(key)}</dt><dd><code>{escape(str(value))}</code></dd>" for key, value in flat(values))
    return f"<dl>{''.join(lines)}</dl>"


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted name, value) of nested dicts.

    >>> list(flat({"a": {"b": 1}, "c": [2]}))
    [('a.b', 1), ('c', [2])]
    """
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def document(title: str, body: str) -> str:
    """The whole page. The policy in its head lets the browser load nothing but what is in the page itself."""
    here = files("toolformer.reporting")
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body><main>\n{body}\n</main>\n"
        f"<script>\n{script}</script></body></html>\n"
    )
