"""In: tools. Out: for each, the other tools whose schema reads most alike: the distractors that are hard to refuse.

Similarity is the cosine of hashed words and character sequences of the schema text; exact, no index needed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from toolformer.records import Tool

BUCKETS = 1 << 16


def features(tools: Sequence[Tool]) -> csr_matrix:
    """Unit rows (n, BUCKETS): damped counts of the words and the 4-letter sequences of name, description and slots."""
    columns, values, starts = [], [], [0]
    for tool in tools:
        words = re.findall(r"[a-z0-9]+", _text(tool).casefold())
        joined = f" {' '.join(words)} "
        parts = [*words, *(joined[i : i + 4] for i in range(len(joined) - 3))]
        hashed, counts = np.unique([zlib.crc32(part.encode()) % BUCKETS for part in parts], return_counts=True)
        weights = np.sqrt(counts)
        columns.append(hashed)
        values.append(weights / np.linalg.norm(weights))
        starts.append(starts[-1] + len(hashed))
    data = np.concatenate(values).astype(np.float32)
    return csr_matrix((data, np.concatenate(columns), starts), shape=(len(tools), BUCKETS))


def _text(tool: Tool) -> str:
    slots = tool.parameters.get("properties", {})
    described = [f"{name} {slot.get('description', '')}" for name, slot in slots.items()]
    return " ".join([tool.name, tool.name, tool.description, *described])


class Negatives:
    """Similarities within one list of tools, worked out once; tools are told apart by id, never by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.ids = [tool.id for tool in tools]
        self.place = {id_: i for i, id_ in enumerate(self.ids)}
        rows = features(tools) if tools else csr_matrix((0, BUCKETS), dtype=np.float32)
        self.similarity: np.ndarray = (rows @ rows.T).toarray()  # (n, n)
        np.fill_diagonal(self.similarity, -1.0)

    def nearest(self, tool_id: str, among: Collection[str], count: int) -> list[str]:
        """The ``count`` ids of ``among`` most like ``tool_id``, nearest first; ties in the order of the list."""
        row = self.similarity[self.place[tool_id]]
        places = np.array([self.place[id_] for id_ in among if id_ != tool_id], dtype=np.int64)
        order = np.lexsort((places, -row[places]))[:count]
        return [self.ids[place] for place in places[order]]
