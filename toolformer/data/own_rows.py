"""In: a file of one's own requests. Out: a source with one split, whose rows can be scored, to evaluate a model on."""

from __future__ import annotations

from toolformer.data.corpus import check, check_gold
from toolformer.data.sources.own import read
from toolformer.records import Example, Tool

SPLIT = "own_rows"


class OwnRows:
    """The rows of a file, each with the tools that it came with.

    Raises:
        ValueError: names file, line, field and value of the first row that cannot be scored.
    """

    selects_only: frozenset[str] = frozenset()

    def __init__(self, path: str):
        self.path = path
        self.rows: list[tuple[Example, list[Tool]]] = []
        places: dict[str, str] = {}
        for place, example, tools in read(path):
            if example.id in places:
                raise ValueError(f"{place}: id is {example.id!r}, as in {places[example.id]}; give each row its own")
            places[example.id] = place
            catalog = {tool.id: tool for tool in tools}
            check(example, catalog, place)
            check_gold(example, catalog, place)
            self.rows.append((example, tools))
        if not self.rows:
            raise ValueError(f"{path}: holds no row; write one request a line")

    def split(
        self, name: str, rows: int | None = None, *, tools_per_request: int = 0
    ) -> tuple[list[Tool], list[Example]]:
        """The catalog and the first ``rows`` examples; ``tools_per_request`` says nothing here."""
        if name != SPLIT:
            raise ValueError(f"{self.path}: split is {name!r}; its one split is {SPLIT}")
        chosen = self.rows[:rows]
        return list({tool.id: tool for _, tools in chosen for tool in tools}.values()), [e for e, _ in chosen]
