"""In: README.md, experiments/*/README.md and the files their markers name. Out: the same pages, every marked block new.

Run as ``python -m experiments.tables``; ``--check`` writes nothing and leaves with 1 where a page is stale.

A block stands between ``<!-- kind: path words -->`` and ``<!-- end -->``; paths start at the root of the repository.

  results   the tables of a metrics.json; words (pointed, test_unseen, masked ...) keep only these on their level
  breakdown the results of the decoding that its word names by source and stratum, and BFCL's own table
  verdict   one sentence: whether that model reads its gists
  figures   the PNGs of a folder; words keep only the named ones, in that order
  output    a text file as it was printed; words: head or tail and a number of lines
  speed     what experiments.speed measured; of its result.json the table that a word names, or bars, or origin
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.speed import page as speed_page
from toolformer.reporting.tables import DECODINGS, MEMORIES, SPLITS, VARIANTS, markdown_breakdown, markdown_table
from toolformer.reporting.verdict import verdict

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- (\w+): (\S+)([^\n]*?) -->\n(.*?)<!-- end -->", re.DOTALL)
EDGE = re.compile(r"^<!-- (\w+: .*|end) -->$", re.MULTILINE)
LEVELS = (SPLITS, VARIANTS, DECODINGS, MEMORIES)


def pages(root: Path = ROOT) -> list[Path]:
    """The pages that have generated blocks."""
    return [root / "README.md", *sorted((root / "experiments").glob("**/README.md"))]


def filled(text: str, page: Path, root: Path = ROOT) -> str:
    """The page's text with every block as its file gives it now."""
    edges = ["end" if found == "end" else "start" for found in EDGE.findall(text)]
    if edges != ["start", "end"] * (len(edges) // 2):
        raise ValueError(f"{page}: its markers are {', '.join(edges)}; write each block as <!-- kind: path --> ... end")

    def block(match: re.Match[str]) -> str:
        kind, path, words = match[1], match[2], match[3].split()
        if kind not in KINDS:
            raise ValueError(f"{page}: a block's kind is {kind!r}; use one of {', '.join(KINDS)}")
        there = (root / path).exists()
        body = KINDS[kind](root / path, words, page) if there else f"*not run yet: `{path}` is missing*"
        return f"<!-- {kind}: {' '.join([path, *words])} -->\n\n{body.strip()}\n\n<!-- end -->"

    return BLOCK.sub(block, text)


def kept(found: Mapping[str, Any], words: Sequence[str], levels: Sequence[Sequence[str]] = LEVELS) -> dict[str, Any]:
    """Nested results without what ``words`` leave out; a level none of whose names is a word is kept whole.

    >>> kept({"plain": {"free": 1, "pointed": 2}}, ["pointed"], (("plain", "masked"), ("free", "pointed")))
    {'plain': {'pointed': 2}}
    """
    if not levels:
        return dict(found)
    wanted = [name for name in levels[0] if name in words]
    chosen = {name: inner for name, inner in found.items() if not wanted or name in wanted}
    return {name: kept(inner, words, levels[1:]) if levels[1:] else inner for name, inner in chosen.items()}


def results(path: Path, words: Sequence[str], page: Path) -> str:
    """The tables, and below them where the numbers come from."""
    metrics = json.loads(path.read_text())
    unknown = set(words) - {name for level in LEVELS for name in level}
    if unknown:
        raise ValueError(f"{page}: a results block says {', '.join(sorted(unknown))}; name splits, names or decodings")
    return f"{markdown_table({**metrics, 'splits': kept(metrics['splits'], words)})}\n\n{origin(metrics, path)}"


def details(path: Path, words: Sequence[str], page: Path) -> str:
    """The results of one decoding by source and stratum."""
    if len(words) != 1 or words[0] not in DECODINGS:
        raise ValueError(f"{page}: a breakdown block says {' '.join(words)!r}; name one of {', '.join(DECODINGS)}")
    return markdown_breakdown(json.loads(path.read_text()), words[0])


def origin(metrics: Mapping[str, Any], path: Path) -> str:
    """One line: command, code, data, and what the run cost where cost.json lies beside."""
    source = metrics["provenance"]
    code = f"commit {source['commit'][:10]}{' and changes' if source['dirty'] else ''}" if source["commit"] else ""
    parts = [f"`{source['command']}`", code, f"data {source['fingerprint'][:10]}", f"weights {source['model'][:10]}"]
    cost = path.with_name("cost.json")
    spent: dict[str, Any] = json.loads(cost.read_text()) if cost.exists() else {"seconds": None, "cores": 1}
    if spent["seconds"] is not None:
        parts.append(
            f"{spent['seconds'] / 60:.0f} minutes on {spent['cores']} core{'' if spent['cores'] == 1 else 's'}"
        )
    return "<sub>Brackets: 95% intervals. " + ", ".join(filter(None, parts)) + ".</sub>"


def judgement(path: Path, words: Sequence[str], page: Path) -> str:
    """The verdict's title and sentence."""
    judged = verdict(json.loads(path.read_text()))
    return f"> **{judged.title}.** {judged.sentence}"


def figures(folder: Path, words: Sequence[str], page: Path) -> str:
    """The pictures, by paths that hold on the page."""
    names = list(words) or sorted(path.stem for path in folder.glob("*.png"))
    missing = [name for name in names if not (folder / f"{name}.png").exists()]
    if missing:
        raise ValueError(f"{page}: no figure {', '.join(missing)} in {folder}; run the experiment again or drop it")
    paths = [os.path.relpath(folder / f"{name}.png", page.parent) for name in names]
    return "\n".join(f"![{name.replace('-', ' ')}]({path})" for name, path in zip(names, paths, strict=True))


def output(path: Path, words: Sequence[str], page: Path) -> str:
    """A program's output as a code block; of a line that a progress bar wrote over, its last state."""
    text = path.read_bytes().decode().strip()  # read_text would make lines of a bar's states
    lines = [line.rstrip("\r").split("\r")[-1].rstrip() for line in text.split("\n")]
    if words:
        if not re.fullmatch(r"(head|tail) [1-9]\d*", " ".join(words)):
            raise ValueError(f"{page}: an output block says {' '.join(words)}; say head 12 or tail 12")
        lines = lines[: int(words[1])] if words[0] == "head" else lines[-int(words[1]) :]
    return "\n".join(["```text", *lines, "```"])


def speed(path: Path, words: Sequence[str], page: Path) -> str:
    """Tables of times; an error names the page."""
    try:
        return speed_page.markdown(path, words)
    except ValueError as error:
        raise ValueError(f"{page}: {error}") from None


KINDS: dict[str, Callable[[Path, Sequence[str], Path], str]] = {
    "results": results,
    "breakdown": details,
    "verdict": judgement,
    "figures": figures,
    "output": output,
    "speed": speed,
}


def stale(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every page that is not as its files give it, with the text that it should have."""
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        new = filled(text, page, root)
        if new != text:
            yield page, new


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """Fills the pages, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is stale")
    check = parser.parse_args(arguments).check
    found = list(stale(root))
    for page, text in found:
        print(f"{page.relative_to(root)}: {'stale; run python -m experiments.tables' if check else 'filled'}")
        if not check:
            page.write_text(text, encoding="utf-8")
    raise SystemExit(1 if check and found else 0)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
