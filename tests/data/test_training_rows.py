"""In: the corpus of invented sources. Out: whether training mixes them as asked, and what its rows offer."""

import shutil
from collections import Counter
from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest
from data import tiny_sources

from toolformer.data.building import Builder, rows
from toolformer.data.corpus import Corpus
from toolformer.data.corpus_rows import CorpusRows, opened
from toolformer.data.mixture import CYCLE, Mixture

SIZES = {"batch_size": 12, "pool_size": 14, "tools_per_request": 6}


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_sources.write(folder / "data")
    return Builder("tiny", folder / "data", folder / "c", tiny_sources.uses(), tiny_sources.RULES, progress=False)


@pytest.fixture(scope="module")
def corpus(builder) -> Corpus:
    made = builder.build()
    assert made is not None
    return made


# ---- the mixture


def table(**sources: tuple[int, int]) -> pa.Table:
    """Rows with and without a call of each source."""
    names = [name for name, counts in sources.items() for _ in range(sum(counts))]
    calls = [text for with_, without in sources.values() for text in ["[1]"] * with_ + ["[]"] * without]
    return pa.table({"source": names, "calls": calls})


def test_a_mixture_is_a_function_of_seed_and_position():
    mixed = table(a=(90, 10), b=(9, 0))
    one, two = Mixture(mixed, 3, 2.0, 0.2, 2), Mixture(mixed, 3, 2.0, 0.2, 2)
    far = two.rows(5 * CYCLE, 300)
    assert [one.rows(k, 1)[0] for k in range(5 * CYCLE, 5 * CYCLE + 300)] == far
    assert one.rows(0, 100) != Mixture(mixed, 4, 2.0, 0.2, 2).rows(0, 100)


def test_sources_weigh_by_the_root_of_their_size_and_rows_without_a_call_at_most_their_share():
    found = Mixture(table(a=(1000, 600), b=(100, 0)), 0, 2.0, 0.25, 1).rows(0, 20 * CYCLE)
    large = sum(row < 1600 for row in found) / len(found)
    assert large == pytest.approx(40 / (40 + 10), abs=0.01)
    assert sum(1000 <= row < 1600 for row in found) / len(found) / large == pytest.approx(0.25, abs=0.01)
    assert set(Mixture(table(a=(0, 30), b=(30, 0)), 0, 1.0, 0.1, 1).rows(0, 4 * CYCLE)) == set(range(60))


def test_each_row_comes_once_in_a_pass_of_its_group():
    found = Mixture(table(a=(64, 0), b=(64, 0)), 0, 1.0, 0.2, 1).rows(0, CYCLE)
    assert set(Counter(found).values()) == {CYCLE // 128}
    assert sorted(Mixture(table(a=(50, 7)), 0, None, 0.2, 4).rows(0, 57)) == list(range(57))


def test_rows_of_a_source_stand_together():
    found = Mixture(table(a=(400, 0), b=(400, 0)), 0, 1.0, 0.2, 4).rows(0, 400)
    assert all(len(list(run)) % 4 == 0 for _, run in groupby(found, key=lambda row: row < 400))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.5}, "temperature is 0.5"),
        ({"no_call_share": 2}, "no_call_share is 2"),
        ({"together": 0}, "together is 0"),
    ],
)
def test_wrong_mixtures_are_named(builder, changed, message):
    with pytest.raises(ValueError, match=message):
        rows(builder, **changed)


# ---- batches


def test_batches_hold_gold_and_nothing_that_may_not_be_trained_on(builder, corpus):
    settings = {"seed": 5, "tool_missing_share": 0.2, "temperature": 2.0, "together": 4}
    source = rows(builder, **settings)
    assert source.batch(7, **SIZES) == CorpusRows(corpus, **settings).batch(7, **SIZES) != source.batch(8, **SIZES)
    originals = {row.id: row for row in corpus.split("train")}
    seen, missing, several, sizes = set(), 0, 0, Counter()
    for step in range(60):
        batch = source.batch(step, **SIZES)
        for row, tools in batch:
            original = originals[row.id.removesuffix("/tool_missing")]
            kin = [corpus.kin[tool.id] for tool in tools]
            assert {one.use for one in kin} == {"trained"} and row.tools == tuple(tool.id for tool in tools)
            assert len({one.function for one in kin}) == len(kin) == len({tool.name for tool in tools})
            assert {call.name for call in row.calls} <= {tool.name for tool in tools}
            if row.stratum == "tool_missing":
                missing += 1
                assert not row.calls and not {call.name for call in original.calls} & {tool.name for tool in tools}
            elif not row.calls and len(original.tools) > 1:
                assert set(row.tools) <= set(original.tools)  # what else could be right is not known
            several += len({call.name for call in row.calls}) > 1
            sizes[len(tools)] += 1
            seen.add(row.source)
    assert seen == {"shop", "bank"} and missing > 60 and several > 30 and sizes.most_common(1)[0][0] == 6


def test_a_corpus_folder_is_enough(builder, corpus, tmp_path):
    copied = shutil.copytree(corpus.folder, tmp_path / "elsewhere")
    assert opened(copied).batch(3, **SIZES) == rows(builder).batch(3, **SIZES)


def test_tools_that_no_row_offers_are_distractors(builder):
    source = rows(builder)
    names = {tool.name for step in range(60) for _, tools in source.batch(step, **SIZES) for tool in tools}
    assert any(name.startswith("spare_shop") for name in names)
    assert not any(name.startswith(("spare_exam", "spare_pick", "late_bank")) for name in names)


# ---- other numbers of tools


@pytest.mark.parametrize("split", ["validation", "test_seen", "test_held_out", "test_unseen", "test_bfcl"])
@pytest.mark.parametrize("count", [1, 3, 8, 20, 60])
def test_rows_can_offer_another_number_of_tools(builder, split, count):
    source = rows(builder)
    tools, examples = source.split(split, 40, tools_per_request=count)
    assert (tools, examples) == source.split(split, 40, tools_per_request=count)
    by_id = {tool.id: tool for tool in tools}
    kept = {row.id: row for row in source.corpus.split(split)}
    at = []
    for row in examples:
        names = [by_id[id_].name for id_ in row.tools]
        gold = {call.name for call in row.calls}
        assert gold <= set(names) and len(set(names)) == len(names)
        own = len(kept[row.id].tools)
        if count < own:
            assert set(row.tools) <= set(kept[row.id].tools) and len(names) == max(count, len(gold))
        elif count <= 20:
            assert set(kept[row.id].tools) <= set(row.tools) and len(names) in (count, own)
        else:
            assert len(names) > 20
        at += [names.index(name) / max(1, len(names) - 1) for name in gold]
    assert count == 1 or np.mean(at) == pytest.approx(0.5, abs=0.2)
