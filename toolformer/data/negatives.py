"""In: tools. Out: for each, the other tools whose schema reads most alike: the distractors that are hard to refuse.

Similarity is the cosine of hashed words and character sequences of the schema text; exact, no index needed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix

from toolformer.records import Tool

BUCKETS = 1 << 16
KEPT = 4096  # rows of similarities that are kept


def features(tools: Sequence[Tool]) -> csr_matrix:
    """Unit rows (n, BUCKETS): damped counts of the words and the 4-letter sequences of name, description and slots."""
    columns, values, starts = [], [], [0]
    for tool in tools:
        words = re.findall(r"[a-z0-9]+", _text(tool).casefold())
        parts = np.concatenate([[_word(word) for word in words], _sequences(f" {' '.join(words)} ")])
        hashed, counts = np.unique(parts.astype(np.int64) % BUCKETS, return_counts=True)
        weights = np.sqrt(counts)
        columns.append(hashed)
        values.append(weights / np.linalg.norm(weights))
        starts.append(starts[-1] + len(hashed))
    data = np.concatenate(values).astype(np.float32)
    return csr_matrix((data, np.concatenate(columns), starts), shape=(len(tools), BUCKETS))


@lru_cache(maxsize=1 << 16)
def _word(word: str) -> int:
    return zlib.crc32(word.encode())


def _sequences(text: str) -> np.ndarray:
    """The CRC-32 of every four letters in a row (ASCII), all at once: as ``zlib.crc32`` gives it one by one."""
    letters = np.frombuffer(text.encode(), np.uint8).astype(np.uint32)
    crc = np.full(max(0, len(letters) - 3), 0xFFFFFFFF, np.uint32)
    for offset in range(4):
        crc = CRC[(crc ^ letters[offset : offset + len(crc)]) & 0xFF] ^ (crc >> np.uint32(8))
    return ~crc


def _crc_table() -> np.ndarray:
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, (crc >> np.uint32(1)) ^ np.uint32(0xEDB88320), crc >> np.uint32(1))
    return crc


CRC = _crc_table()


def _text(tool: Tool) -> str:
    slots = tool.parameters.get("properties", {})
    described = [f"{name} {slot.get('description', '')}" for name, slot in slots.items()]
    return " ".join([tool.name, tool.name, tool.description, *described])


class Negatives:
    """Similarities within one list of tools, worked out tool by tool; tools are told apart by id, never by name."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.ids = [tool.id for tool in tools]
        self.place = {id_: i for i, id_ in enumerate(self.ids)}
        self._rows = features(tools) if tools else csr_matrix((0, BUCKETS), dtype=np.float32)
        self._columns = self._rows.T.tocsr()
        self._known: dict[int, np.ndarray] = {}

    def similarity(self, place: int) -> np.ndarray:
        """Of the tool at ``place`` to each tool of the list (n,), -1 to itself."""
        if place not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            row = (self._rows[place] @ self._columns).toarray()[0]
            row[place] = -1.0
            self._known[place] = row
        return self._known[place]

    def nearest(self, tool_id: str, among: Collection[str], count: int) -> list[str]:
        """The ``count`` ids of ``among`` most like ``tool_id``, nearest first; ties in the order of the list."""
        places = np.array([self.place[id_] for id_ in among if id_ != tool_id], dtype=np.int64)
        return [self.ids[place] for place in self.nearest_of(self.place[tool_id], places, count)]

    def nearest_of(self, place: int, among: np.ndarray, count: int) -> np.ndarray:
        """The same by places in the list."""
        row = self.similarity(place)[among]
        return among[np.lexsort((among, -row))[:count]]
