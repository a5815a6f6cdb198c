"""In: texts at random and by hand. Out: whether the join finds what the definition says, and how long it takes."""

import random

import numpy as np
import pytest
from data import sparse_product
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer.data.near import GRAM, clusters, grams, joined, near, pairs


def jaccard(one: str, two: str) -> float:
    """The definition, written out."""

    def grams(text: str) -> set[tuple[str, ...]]:
        tokens = text.split()
        return {tuple(tokens[i : i + GRAM]) for i in range(max(1, len(tokens) - GRAM + 1))}

    return len(grams(one) & grams(two)) / len(grams(one) | grams(two))


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=0, max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6))
def test_near_duplicates_are_those_of_the_definition(left, right):
    found = {(i, j): value for i, j, value in pairs(grams(left), grams(right), 0.5)}
    for i, one in enumerate(left):
        for j, two in enumerate(right):
            expected = jaccard(one, two)
            assert ((i, j) in found) == (expected >= 0.5)
            assert found.get((i, j), expected) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9, 1.0])
def test_the_join_is_as_exact_as_the_sparse_product(threshold):
    rng = random.Random(threshold)
    for letters in (2, 4, 8) * 5:
        texts = [" ".join(rng.choice("abcdefgh"[:letters]) for _ in range(rng.randrange(14))) for _ in range(40)]
        rows = sparse_product.shingles(texts)
        wanted = sparse_product.alike(rows[:15], rows[15:], threshold - 1e-6)
        found = pairs(grams(texts[:15]), grams(texts[15:]), threshold)
        assert [(i, j, pytest.approx(value, abs=1e-6)) for i, j, value in wanted] == found
        assert set(np.flatnonzero(near(grams(texts[:15]), grams(texts[15:]), threshold))) == {j for _, j, _ in found}
        every = np.array([(i, j) for i, j, _ in sparse_product.alike(rows, rows, threshold - 1e-6)])
        wanted = joined(np.arange(40), every[:, 0], every[:, 1])
        assert clusters(grams(texts), threshold).tolist() == wanted.tolist()


def test_a_cluster_is_a_chain_and_its_label_the_first_member():
    texts = ["x y z", "a b c d e f g", "b c d e f g h", "c d e f g h i", "X, y z!", "q r s t u v"]
    assert clusters(grams(texts), 0.5).tolist() == [0, 1, 1, 1, 0, 5]  # 1 and 3 share too little by themselves
    assert clusters(grams([]), 0.5).tolist() == []


def test_sets_do_not_depend_on_what_stands_beside_them():
    texts = ["one two three four five six", "", "one two three four five six seven", "é ß 1.5"]
    together = grams(texts)
    for place, text in enumerate(texts):
        alone = grams([text])
        assert together.take(np.array([place])).values.tolist() == alone.values.tolist()
    assert together.sizes.tolist() == [2, 1, 3, 1]


def test_a_million_alike_pairs_are_clustered_in_seconds():
    """Requests of 100 templates, each with another end: 20,000 rows hold two million pairs that are alike."""
    rng = np.random.default_rng(0)
    templates = rng.integers(0, 5000, (100, 17))
    rows = np.concatenate([templates[np.arange(20_000) % 100], rng.integers(0, 5000, (20_000, 3))], axis=1)
    labels = clusters(grams([" ".join(map(str, row)) for row in rows.tolist()]), 0.5)
    assert labels.tolist() == (np.arange(20_000) % 100).tolist()
