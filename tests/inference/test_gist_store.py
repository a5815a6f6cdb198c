"""In: stores on disk and in memory. Out: whether gists come back whole, and only to the model that made them."""

import random
import sqlite3
from multiprocessing import get_context
from threading import Thread

import pytest
import torch
from tiny_caller import prompts, random_model, switch

from toolformer.inference.gist_file import GistFile
from toolformer.inference.gist_store import GistStore, gist_fingerprint

LAMP, FAN, RADIO = switch("lamp"), switch("fan"), switch("radio")
MANY = [switch(f"switch_{i}") for i in range(40)]
MINE, OTHER = "a" * 16, "b" * 16


def gists_of(tool, dtype=torch.float32) -> torch.Tensor:
    """Always the same for the same tool, so that whoever reads knows what is right."""
    return torch.randn(3, 8, generator=torch.Generator().manual_seed(int(tool.id[:8], 16))).to(dtype)


def filled(folder, tools=(LAMP, FAN), **settings) -> GistStore:
    store = GistStore(folder, MINE, **settings)
    store.add_many(tools, [gists_of(tool) for tool in tools])
    return store


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_for_bit_and_survives_reopening(tmp_path, dtype):
    filled(tmp_path).add(FAN, gists_of(FAN, dtype))
    store = GistStore(tmp_path, MINE)
    assert len(store) == 2 and LAMP in store and RADIO not in store
    assert torch.equal(store.get(FAN), gists_of(FAN, dtype)) and store.get(FAN).dtype == dtype
    assert torch.equal(store.get(LAMP), gists_of(LAMP)) and list(store.tools()) == [LAMP, FAN]
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["gists.sqlite"] and LAMP in store


def test_many_at_once_in_the_order_asked_for_and_those_that_are_there():
    store = filled(None, MANY)
    asked = [MANY[30], MANY[2], MANY[30]]
    assert all(map(torch.equal, store.get_many(asked), map(gists_of, asked)))
    assert set(store.find([LAMP, MANY[3]])) == {MANY[3].id}
    with pytest.raises(ValueError, match=f"store in memory: tool 'lamp' \\(id {LAMP.id}\\) is not stored; add it"):
        store.get_many([MANY[3], LAMP])
    assert LAMP not in GistStore(None, MINE), "each store in memory is its own"


def test_replacing_removing_and_reordering_leave_the_others_alone(tmp_path):
    store = filled(tmp_path)
    store.replace(LAMP, RADIO, torch.ones(3, 8))
    assert LAMP not in store and torch.equal(store.get(RADIO), torch.ones(3, 8))
    store.replace(RADIO, RADIO, torch.zeros(3, 8))
    assert torch.equal(store.get(RADIO), torch.zeros(3, 8)) and list(store.tools()) == [RADIO, FAN]
    store.add(LAMP, gists_of(LAMP))
    store.reorder([LAMP])
    assert list(store.tools()) == list(GistStore(tmp_path, MINE).tools()) == [LAMP, RADIO, FAN]
    store.remove(RADIO)
    assert list(store.tools()) == [LAMP, FAN] and torch.equal(store.get(FAN), gists_of(FAN))


def test_a_write_is_whole_or_nothing(tmp_path):
    store = filled(tmp_path)
    with pytest.raises(ValueError, match="tool 'radio' .*: gists holds numbers that are not finite"):
        store.add_many([FAN, RADIO], [torch.zeros(3, 8), torch.full((3, 8), torch.nan)])
    with pytest.raises(ValueError, match="is not stored"):
        store.reorder([FAN, RADIO])
    assert list(store.tools()) == [LAMP, FAN] and torch.equal(store.get(FAN), gists_of(FAN))


def test_a_slice_of_a_larger_tensor_is_stored_alone():
    store, table = GistStore(None, MINE), torch.randn(100, 3, 8)
    store.add(LAMP, table[7])
    assert torch.equal(store.get(LAMP), table[7]) and store.size < 500


def test_any_tensors_by_name(tmp_path):
    store, kv = GistStore(tmp_path, MINE, precision="int8"), torch.randn(4, 2, 3, 8).bfloat16()
    store.add(LAMP, {"kv": kv, "gists": gists_of(LAMP), "places": torch.arange(5)})
    assert store.get(LAMP, "kv").shape == kv.shape and store.get(LAMP, "kv").dtype == torch.bfloat16
    assert torch.equal(store.get(LAMP, "places"), torch.arange(5))
    with pytest.raises(ValueError, match="tool 'lamp' .* is stored without 'values'; add it again with it"):
        store.get(LAMP, "values")
    assert store.find([LAMP], "values") == {}
    with pytest.raises(ValueError, match="tensor name is 'a.scale'"):
        store.add(FAN, {"a.scale": kv})


@pytest.mark.parametrize(("precision", "bytes_a_number"), [("given", 4), ("bf16", 2), ("int8", 1)])
def test_precision_is_as_small_and_as_near_as_it_says(precision, bytes_a_number):
    store, gists = GistStore(None, MINE, precision=precision), torch.randn(8, 512) * torch.logspace(-6, 6, 8)[:, None]
    gists[3] = 0
    store.add(LAMP, gists)
    got, largest = store.get(LAMP), gists.abs().amax(-1, keepdim=True)
    assert (
        got.dtype == torch.float32
        and gists.numel() * bytes_a_number < store.size < gists.numel() * bytes_a_number + 700
    )
    bound = {"given": torch.zeros(8, 512), "bf16": gists.abs() / 256, "int8": largest / 253.99}[precision]
    assert ((got - gists).abs() <= bound).all()
    store.add(FAN, got)
    assert torch.equal(store.get(FAN), got), "what was rounded once is not rounded again"


def test_what_is_not_there_is_named(tmp_path):
    store = filled(tmp_path)
    for ask in (store.get, store.remove, lambda tool: store.replace(tool, LAMP, torch.ones(1, 1))):
        with pytest.raises(ValueError, match=f"gists.sqlite: tool 'radio' \\(id {RADIO.id}\\) is not stored"):
            ask(RADIO)


# --- limits ---


def test_what_was_not_used_for_longest_goes_and_never_what_is_in_use(tmp_path):
    size = filled(None, [LAMP]).size
    filled(tmp_path, MANY[:4])
    reader, store = (GistStore(tmp_path, MINE, limit=size * 5 - 1) for _ in range(2))
    reader.get(MANY[0])
    store.get(MANY[1])
    store.add(FAN, gists_of(FAN))
    assert list(store.tools()) == [MANY[0], MANY[1], MANY[3], FAN], "the first was used by another, the second here"
    store.add(RADIO, gists_of(RADIO))
    assert list(store.tools()) == [MANY[0], MANY[1], FAN, RADIO]
    store.add(LAMP, gists_of(LAMP))
    assert list(store.tools()) == [MANY[1], FAN, RADIO, LAMP] and store.size <= store.limit
    with pytest.raises(ValueError, match=f"limit is {size * 5 - 1} bytes, the new tools and those in use have"):
        store.add(MANY[7], gists_of(MANY[7]))
    assert list(store.tools()) == [MANY[1], FAN, RADIO, LAMP]
    store.release([FAN])
    store.add(MANY[7], gists_of(MANY[7]))
    assert list(store.tools()) == [MANY[1], RADIO, LAMP, MANY[7]]


def test_removed_tools_give_their_room_back(tmp_path):
    store = GistStore(tmp_path, MINE)
    store.add_many(MANY, [torch.randn(8, 896) for _ in MANY])
    before = (tmp_path / "gists.sqlite").stat().st_size
    for tool in MANY[:20]:
        store.remove(tool)
    assert (tmp_path / "gists.sqlite").stat().st_size < 0.6 * before


# --- what must not be served ---


def test_another_models_store_is_refused(tmp_path):
    filled(tmp_path)
    with pytest.raises(ValueError, match="gists.sqlite: fingerprint is a{16}, this model's is b{16}; use a folder"):
        GistStore(tmp_path, OTHER)
    with pytest.raises(ValueError, match="precision is given, this model's is int8"):
        GistStore(tmp_path, MINE, precision="int8")
    with pytest.raises(ValueError, match="precision is 'fp8'; take one of given, bf16, int8"):
        GistStore(tmp_path, MINE, precision="fp8")


@pytest.mark.parametrize(("change", "why"), [
    ("UPDATE tensors SET fingerprint = '{other}'", "is damaged, its checksum differs; remove it from the store"),
    ("UPDATE tensors SET content = substr(content, 2)", "is damaged"),
    ("UPDATE tensors SET content = 7, digest = NULL", "is damaged"),
    ("DELETE FROM tensors WHERE id = '{lamp}'; UPDATE tensors SET id = '{lamp}'", "is damaged"),
    ("DELETE FROM tensors; INSERT INTO tensors SELECT * FROM foreigner.tensors", "fingerprint is b{{16}}, the store's"),
    ("DROP TABLE tensors", "cannot be read: no such table: tensors; remove the file and add the tools again"),
    ("PRAGMA user_version = 99", "format is 99, this model's is 2"),
])  # fmt: skip
def test_what_was_tampered_with_is_refused(tmp_path, change, why):
    filled(tmp_path / "mine").close()
    other = GistStore(tmp_path / "foreign", OTHER)
    other.add(LAMP, torch.ones(3, 8))
    with sqlite3.connect(tmp_path / "mine" / "gists.sqlite") as file:
        file.execute(f"ATTACH '{tmp_path / 'foreign' / 'gists.sqlite'}' AS foreigner")
        file.commit()
        file.executescript(change.format(lamp=LAMP.id, other=OTHER))
    file.close()
    with pytest.raises(ValueError, match=why.format()):
        GistStore(tmp_path / "mine", MINE).get(LAMP)


def test_a_damaged_tool_can_be_added_again(tmp_path):
    store = filled(tmp_path)
    with sqlite3.connect(tmp_path / "gists.sqlite") as file:
        file.execute("UPDATE tensors SET tool = content")
    file.close()
    with pytest.raises(ValueError, match="the schema of the tool with id .* is damaged"):
        list(store.tools())
    store.remove(LAMP)
    store.add(LAMP, gists_of(LAMP))
    assert torch.equal(store.get(LAMP), gists_of(LAMP))
    with pytest.raises(ValueError, match="tool 'fan' .* is damaged"):
        store.get(FAN)


def test_a_flipped_bit_anywhere_serves_nothing_wrong(tmp_path):
    tools, store = MANY[:12], GistStore(tmp_path, MINE)
    store.add_many(tools, [gists_of(tool).repeat(8, 4) for tool in tools])
    store.close()
    path, rng, refused = tmp_path / "gists.sqlite", random.Random(0), 0
    whole = path.read_bytes()
    for last in [len(whole)] * 25 + [2000] * 15:  # anywhere, and where the file says how it is laid out
        where = rng.randrange(8 * last)
        content = bytearray(whole)
        content[where // 8] ^= 1 << where % 8
        path.write_bytes(content)
        try:
            store = GistStore(tmp_path, MINE)
            for tool in tools:
                assert torch.equal(store.get(tool), gists_of(tool).repeat(8, 4)), where
            store.close()
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("content", [b"no store", b"x" * 20_000])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "gists.sqlite").write_bytes(content)
    with pytest.raises(ValueError, match="gists.sqlite: cannot be read: file is not a database; remove the file"):
        GistStore(tmp_path, MINE)


def test_a_full_disk_leaves_what_is_there(tmp_path):
    store = filled(tmp_path)
    with store._file.transaction() as file:
        file.execute(f"PRAGMA max_page_count = {file.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(OSError, match="disk is full; see that the disk has room and that the folder may be written"):
        store.add_many([RADIO, LAMP], [torch.randn(100, 1000), torch.zeros(1, 1)])
    assert RADIO not in store and torch.equal(store.get(LAMP), gists_of(LAMP))


# --- together ---


def test_threads_and_forks_share_an_object(tmp_path):
    store, wrong = GistStore(tmp_path, MINE), []

    def work(part: int) -> None:
        for tool in MANY[part:20:4]:
            store.add(tool, gists_of(tool))
            wrong.extend([] if torch.equal(store.get(tool), gists_of(tool)) else [tool])

    threads = [Thread(target=work, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    fork = get_context("fork").Process(target=work, args=(3,))  # while threads write
    fork.start()
    for each in (*threads, fork):
        each.join(60)
    assert fork.exitcode == 0 and not wrong
    assert len(store) == 20 and all(map(torch.equal, store.get_many(MANY[:20]), map(gists_of, MANY)))


def test_a_writer_is_waited_for_and_a_reader_waits_for_none(tmp_path):
    store, other = filled(tmp_path, limit=10_000), GistFile(tmp_path / "gists.sqlite")
    with other.transaction(write=True) as file:
        assert torch.equal(store.get(LAMP), gists_of(LAMP))
        with pytest.raises(TimeoutError, match="gists.sqlite: others have been using it for 0 s; end them"):
            with GistFile(tmp_path / "gists.sqlite").transaction(write=True, wait=0):
                pass
        file.execute("DELETE FROM tools")
    assert LAMP not in store


def test_the_fingerprint_is_of_weights_tokenizer_and_limit():
    model, limits = random_model(), prompts()
    first = gist_fingerprint(model, limits)
    assert gist_fingerprint(random_model(), limits) == first != gist_fingerprint(random_model(1), limits)
    limits.schema_limit -= 1
    try:
        assert gist_fingerprint(model, limits) != first
    finally:
        limits.schema_limit += 1
    with torch.no_grad():
        model.gist_pool.queries[0, 0] += 1e-3
    assert gist_fingerprint(model, limits) != first
