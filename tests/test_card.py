"""In: the corpus of invented sources. Out: whether its data card says what is there, and needs no other file."""

import re

from data import tiny_sources

from toolformer.data.building import Builder
from toolformer.reporting.card import CAPTIONS, write_card


def test_a_card_says_what_is_there(tmp_path):
    tiny_sources.write(tmp_path / "data", 160)
    made = Builder("tiny", tmp_path / "data", tmp_path / "c", tiny_sources.uses(), tiny_sources.RULES, progress=False)
    corpus = made.build()
    assert corpus is not None
    page = write_card(corpus.folder, corpus.info)
    html, text = page.read_text(), (corpus.folder / "card.md").read_text()
    for source in corpus.info["sources"]:
        line = next(line for line in text.splitlines() if line.startswith(f"| [{source['name']}]("))
        cells = [int(cell.replace(",", "")) for cell in re.findall(r"(?<=\| )[\d,]+(?= \|)", line)]
        assert cells[0] == source["rows_there"] == sum(cells[1:]) and source["licence"] in line
        assert all(
            f"| {source['name']} | {reason} | {count:,} |" in text for reason, count in source["set_aside"].items()
        )
    for split, count in corpus.info["rows"].items():
        assert f"| {split} | {count:,} |" in text and f"<td>{split}</td><td>{count:,}</td>" in html
    assert f"Fingerprint {corpus.fingerprint}" in text
    assert html.count("<figure>") == len(CAPTIONS) and not re.search(r'(src|href)="(?!data:|#)', html)
    before = page.read_bytes(), text
    write_card(corpus.folder, corpus.info)
    assert (page.read_bytes(), (corpus.folder / "card.md").read_text()) == before
    assert not list(corpus.folder.glob(".*"))
