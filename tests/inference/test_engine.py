"""In: small real models. Out: whether decoding is what an uncached model would write, whatever the batch is."""

import random
from itertools import product

import pytest
import torch
from tiny_caller import hand_made, prompts, random_model, rows, switch

from toolformer.calls import Malformed, parse
from toolformer.data.batches import ALL, pad
from toolformer.data.prompts import Prompts
from toolformer.inference import engine as engines
from toolformer.inference.engine import DECODINGS, Answer, Engine, Request, readable, sittings
from toolformer.inference.naive import NaiveEngine
from toolformer.records import Message, Tool


def requests(engine: Engine, n: int = 8) -> list[Request]:
    """Rows with ragged numbers of tools, none among them."""
    out = []
    for i, (example, tools) in enumerate(rows()[:n]):
        offered = tools[: (0, 6, 3, 1, 5)[i % 5]]
        out.append(Request(example.messages, offered, engine.encode(offered)))
    return out


def texts(answers: list[Answer]) -> list[tuple[str, bool]]:
    return [(answer.text, answer.finished) for answer in answers]


@pytest.mark.parametrize("extras", [False, True])
def test_free_decoding_is_greedy_generation_without_a_cache(extras):
    model = random_model(ends=3.0 if extras else 2.0, no_tool_gist=extras, copy_head=extras)
    engine = Engine(model, prompts(), batch_size=4, max_new_tokens=12)
    asked = requests(engine, 8)
    finished = 0
    for request, answer in zip(asked, engine.answer(asked, "free"), strict=True):
        ids, mask = pad([prompts().prompt(request.messages, room=12)])
        memory, memory_mask = model.memory(request.gists, torch.arange(len(request.tools))[None])
        written = model.generate(
            ids, attention_mask=mask.long(), memory=memory, memory_mask=memory_mask,
            reading=model.read(ids, mask), do_sample=False, use_cache=False, max_new_tokens=12,
            eos_token_id=prompts().end, pad_token_id=0,
        )[0, ids.shape[1] :].tolist()  # fmt: skip
        assert answer.tokens == written
        finished += answer.finished
    assert 0 < finished < len(asked), "answers should end at different times"


@pytest.mark.parametrize("decoding", DECODINGS)
def test_batching_padding_and_compaction_change_nothing(decoding):
    model = random_model(ends=1.6, copy_head=True)
    alone = Engine(model, prompts(), batch_size=1, max_new_tokens=14)
    asked = requests(alone)
    wanted = texts(alone.answer(asked, decoding))
    assert len({text for text, _ in wanted}) > 3
    for size in (3, 8):
        engine = Engine(model, prompts(), batch_size=size, max_new_tokens=14)
        assert texts(engine.answer(asked, decoding)) == wanted
    order = list(range(len(asked)))
    random.Random(0).shuffle(order)
    answers = Engine(model, prompts(), batch_size=4, max_new_tokens=14).answer([asked[i] for i in order], decoding)
    assert texts(answers) == [wanted[i] for i in order]


@pytest.mark.parametrize("query", ["decoder", "both"])
@pytest.mark.parametrize("focus", [False, True])
def test_every_pointed_decision_is_the_pointers(query, focus):
    """At each call start an uncached forward over all that was written gives the same choice."""
    model = random_model(3, pointer_query=query, focus=focus)
    tools = [switch(name) for name in ("lamp", "heater", "radio", "fan")]
    with torch.no_grad():
        model.pointer.no_call.bias.sub_(8.0)  # else it never calls
    engine = Engine(model, prompts(), max_new_tokens=120)
    gists = engine.encode(tools)
    asked = [Request(example.messages, tools, gists) for example, _ in rows()[:4]]
    decisions = 0
    for request, answer in zip(asked, engine.answer(asked, "pointed"), strict=True):
        assert answer.finished or not answer.text.startswith("<tool_call>")
        calls = parse(answer.text)
        names = [] if isinstance(calls, Malformed) else [call.name for call in calls]
        prompt = prompts().prompt(request.messages, room=120)
        ends = [i + 1 for i, token in enumerate(answer.tokens) if token == prompts().call_close]
        looks: list[int] = []  # the tool each token looks at
        pick = 0
        for number, end in enumerate([0, *ends][: len(answer.choices)]):
            ids = torch.tensor([prompt + answer.tokens[:end]])
            index = torch.arange(len(tools))[None]
            memory, memory_mask = model.memory(gists, index)
            with torch.no_grad():
                asking = torch.tensor([prompt])
                view = model.encode_request(asking, torch.ones_like(asking, dtype=torch.bool))
                if focus:
                    looks = looks or [int(model.nearest(view, gists, index))] * len(prompt)
                    looks += [pick - 1] * (len(prompt) + end - 1 - len(looks)) + [-1] * bool(end) if number else []
                    memory_mask = model.focused(memory_mask, torch.tensor([looks]))
                states = model.decode(ids, memory=memory, memory_mask=memory_mask)[:, -1:]
                called = torch.tensor([[[tool.name in names[:number] for tool in tools]]])
                shares = model.point(states, view, gists, index, called)[0, 0].softmax(-1)
            assert torch.allclose(shares, torch.tensor(answer.choices[number]).float(), atol=1e-4)
            pick = int(shares.argmax())
            if pick and number < engine.most_calls:
                assert names[number] == tools[pick - 1].name
                decisions += 1
            else:
                assert len(names) == number
    assert decisions > 1


def test_several_calls_and_their_limit():
    model = hand_made()
    tools = [switch("lamp"), switch("heater")]
    for most in (1, 3):
        engine = Engine(model, prompts(), most_calls=most, max_new_tokens=200)
        asked = [Request([Message("user", "lamp please")], tools, engine.encode(tools))]
        (answer,) = engine.answer(asked, "pointed")
        calls = parse(answer.text)
        assert answer.finished and [call.name for call in calls] == ["lamp"] * most
        assert all(call.arguments["state"] in ("on", "off") for call in calls)
        (answer,) = engine.answer(asked, "constrained")
        assert answer.finished and 1 <= len(parse(answer.text)) <= most


def test_the_bias_decides_on_the_first_call_alone():
    model = hand_made()
    tools = [switch("lamp"), switch("heater")]
    engine = Engine(model, prompts(), max_new_tokens=60, most_calls=2, no_call_bias=1000.0)
    asked = [Request([Message("user", "lamp please")], tools, engine.encode(tools))]
    assert parse(engine.answer(asked, "pointed")[0].text) == []
    engine.no_call_bias = -1000.0
    assert len(parse(engine.answer(asked, "pointed")[0].text)) == 2


@pytest.mark.parametrize("decoding", DECODINGS)
def test_no_tools_at_all(decoding):
    model = random_model()
    engine = Engine(model, prompts(), max_new_tokens=10)
    asked = [Request([Message("user", text)], [], engine.encode([])) for text in ("hello", "what a fine day")]
    for answer in engine.answer(asked, decoding):
        assert decoding == "free" or parse(answer.text) == []


def test_each_tool_is_encoded_as_if_alone():
    model = random_model()
    engine = Engine(model, prompts())
    tools = list({tool.id: tool for _, offered in rows()[:10] for tool in offered}.values())
    together = engine.encode(tools, batch_size=7)
    for tool, gists in zip(tools[:5], together, strict=False):
        assert torch.allclose(engine.encode([tool])[0], gists, atol=1e-4)
    assert engine.encode([]).shape == (0, 3, 32)


def test_first_scores_are_what_the_first_decision_is_made_of():
    model = random_model()
    engine = Engine(model, prompts(), batch_size=3, max_new_tokens=2)
    asked = requests(engine, 7)
    for scores, answer in zip(engine.first_scores(asked), engine.answer(asked, "pointed"), strict=True):
        assert torch.allclose(torch.tensor(scores).softmax(-1), torch.tensor(answer.choices[0]).float(), atol=1e-4)


def test_pointed_needs_a_pointer():
    model = random_model(pointer=False)
    engine = Engine(model, prompts())
    with pytest.raises(ValueError, match="the model has no pointer; use free or constrained"):
        engine.answer([Request([Message("user", "hi")], [], engine.encode([]))], "pointed")


def test_names_that_need_escapes_are_spelled_right():
    tools = [Tool('say "hi" \\ ü', "Greets.", {"type": "object", "properties": {}})]
    engine = Engine(hand_made(), prompts(), most_calls=1, max_new_tokens=80, no_call_bias=-1000.0)
    for decoding in ("constrained", "pointed"):
        (answer,) = engine.answer([Request([Message("user", "say hi")], tools, engine.encode(tools))], decoding)
        assert [call.name for call in parse(answer.text)] == [tools[0].name]


@pytest.mark.parametrize("decoding", ["free", "pointed"])
def test_what_a_call_says_depends_on_no_other_tool(decoding):
    """With focus: other gists in the places of the tools that were neither nearest nor chosen, the same answer."""
    model = random_model(3, focus=True, pointer_query="encoder")
    with torch.no_grad():
        model.pointer.no_call.bias.sub_(8.0)
    tools = [switch(name) for name in ("lamp", "heater", "radio", "fan")]
    engine = Engine(model, prompts(), max_new_tokens=40, most_calls=1)
    gists = engine.encode(tools)
    asked = [Request(example.messages, tools, gists) for example, _ in rows()[:6]]
    places = model.embed(gists)
    for request, answer in zip(asked, engine.answer(asked, decoding), strict=True):
        ids, mask = pad([prompts().prompt(request.messages, room=40)])
        with torch.no_grad():
            best = int((model.embed(model.encode_request(ids, mask)) @ places.T).argmax())
        other = gists.mean(0, keepdim=True).expand_as(gists).clone()
        other[best] = gists[best]
        moved = model.embed(model.encode_request(ids, mask)) @ model.embed(other).T
        if int(moved.argmax()) == best:  # else the pointer itself has reason to choose another
            (again,) = engine.answer([request._replace(gists=other)], decoding)
            assert again.tokens == answer.tokens


def test_constrained_decoding_looks_where_training_looked():
    """With focus: at all tools until the call has told a name, then at that tool; as an uncached forward writes."""
    model = random_model(5, focus=True, copy_head=True, tie_word_embeddings=False)
    tools = [switch(name) for name in ("lamp", "heater", "radio")]
    engine = Engine(model, prompts(), max_new_tokens=60, most_calls=1)
    gists, index = engine.encode(tools), torch.arange(3)[None]
    with torch.no_grad():  # whatever was read, a call begins
        ids, mask = pad([prompts().prompt(example.messages) for example, _ in rows()[:16]], left=True)
        model.lm_head.weight[prompts().call_open] = 9.0 * model.decode(ids, mask.long())[:, -1].mean(0)
    asked = [Request(example.messages, tools, gists) for example, _ in rows()[:16]]
    compared = 0
    for request, answer in zip(asked, engine.answer(asked, "constrained"), strict=True):
        prompt = prompts().prompt(request.messages, room=60)
        ids = torch.tensor([[*prompt, *answer.tokens]])
        texts_so_far = [prompts().tokenizer.decode(answer.tokens[: n + 1]) for n in range(len(answer.tokens))]
        named = [[i for i, tool in enumerate(tools) if f'{{"name": "{tool.name}"' in text] for text in texts_so_far]
        looks = [ALL] * len(prompt) + [(found or [ALL])[0] for found in named]
        memory, mask = model.memory(gists, index)
        with torch.no_grad():
            states = model.decode(ids, memory=memory, memory_mask=model.focused(mask, torch.tensor([looks])))
            reading = model.read(ids[:, : len(prompt)], torch.ones(1, len(prompt), dtype=torch.bool))
            logits = model.next_token_logits(states, ids, None, None, reading=reading)[0]
        matcher = engine.grammar.choice(tools, 1)
        for at, token in enumerate(answer.tokens, start=len(prompt)):
            allowed = torch.from_numpy(engine.grammar.allowed([matcher], logits.shape[1]))[0]
            assert int(logits[at - 1].masked_fill(~allowed, float("-inf")).argmax()) == token
            matcher.consume_token(token)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize("decoding", DECODINGS)
def test_it_writes_token_for_token_what_the_naive_engine_writes(decoding):
    """In float64, over ragged prompts and tools; what is told as it is written is the answer too."""
    rng, called, counts = random.Random(decoding), 0, set()
    kinds = product([False, True], [False, True], [False, True], ["none", "required"])
    for seed, (focus, copy_head, no_tool, forms) in enumerate(kinds):
        model = random_model(
            seed, focus=focus, copy_head=copy_head, no_tool_gist=no_tool, forms=forms,
            pointer_query=rng.choice(["both", "encoder", "decoder"]), tie_word_embeddings=False,
        ).double()  # fmt: skip
        likely = torch.zeros(model.config.vocab_size).double()  # some calls, some replies, some that end
        for mark in (prompts().call_open, prompts().call_close, prompts().end):
            likely[mark] = rng.uniform(0.0, 9.0)
        model.lm_head.bias = torch.nn.Parameter(likely)
        with torch.no_grad():
            model.pointer.no_call.bias.sub_(rng.uniform(0.0, 8.0))
        limits = {"max_new_tokens": rng.choice([1, 4, 7, 18]), "most_calls": rng.choice([1, 3])}
        limits["no_call_bias"] = rng.choice([0.0, 1.0])
        own = Prompts(prompts().tokenizer, forms=forms)
        fast, naive = Engine(model, own, batch_size=rng.choice([2, 4, 8]), **limits), NaiveEngine(model, own, **limits)
        naive._grammar = fast.grammar
        known = [switch("lamp"), switch("radio", options=3), *rows()[seed][1]]
        gists = fast.encode(known)
        assert torch.allclose(gists[:2], naive.encode(known[:2]), atol=1e-5)
        asked = []
        for example, _ in rng.sample(rows(), 5):
            places = rng.sample(range(len(known)), rng.choice([0, 1, 2, 3, len(known)]))
            asked.append(Request(example.messages, [known[place] for place in places], gists[places]))
        told: list[list[int]] = [[] for _ in asked]
        answers = fast.answer(asked, decoding, on_token=lambda row, token, told=told: told[row].append(token))
        for answer, wanted, heard in zip(answers, naive.answer(asked, decoding), told, strict=True):
            assert answer.tokens == wanted.tokens == heard
            assert (answer.text, answer.finished, answer.asked) == (wanted.text, wanted.finished, wanted.asked)
            for some, same in zip(answer.choices, wanted.choices, strict=True):
                assert some == pytest.approx(same, abs=1e-4)
            called += prompts().call_open in answer.tokens
            counts.add(len(answer.tokens))
        for one, other in zip(fast.first(asked[:1], decoding), naive.first(asked[:1], decoding), strict=True):
            assert torch.allclose(one[0], other[0], atol=1e-4) and one[1] == pytest.approx(other[1], abs=1e-3)
    assert 5 < called < 75 and len(counts) > 4


def test_a_reply_that_looks_like_a_call_is_not_one():
    """With focus a constrained answer looks at the tool that a call has named; without the mark there is no call."""
    model, tools = random_model(focus=True, tie_word_embeddings=False), [switch("lamp"), switch("radio")]
    said = prompts().ids('{"name": "nothing", "arguments": {}} and {"name": "lamp"')
    engine = Engine(model, prompts(), max_new_tokens=len(said))
    asked = [Request([Message("user", "lamp please")], tools, engine.encode(tools))]
    engine._choose = lambda batch, start, states, slots: [said[len(batch.rows[slot].answer.tokens)] for slot in slots]
    seen: list[int] = []
    (answer,) = engine.answer(asked, "constrained", on_token=lambda row, token: seen.append(token))
    assert answer.tokens == seen == said


def test_long_prompts_are_read_by_few_and_short_ones_do_not_wait_for_them(monkeypatch):
    """What is kept, and what looks at what while prompts are read, is bounded whatever the lengths; answers are not."""
    model = random_model(ends=1.5, copy_head=True).double()
    texts = [" ".join(["lamp please"] * n) for n in (1, 90, 2, 1, 60, 3, 80, 1, 2, 20)]
    tools = [switch("lamp"), switch("radio")]
    plain = Engine(model, prompts(), batch_size=8, max_new_tokens=6)
    asked = [Request([Message("user", text)], tools, plain.encode(tools)) for text in texts]
    wanted = plain.answer(asked, "pointed")
    monkeypatch.setattr(engines, "TOKENS", 900)
    monkeypatch.setattr(engines, "PAIRS", 60_000)
    cut = sorted(plain._rows(asked, "pointed"), key=lambda row: len(row.prompt))
    parts = list(sittings(list(cut), 8))
    assert sorted(row.place for _, part in parts for row in part) == list(range(len(asked))) and len(parts) > 1
    assert all(size == 1 or size * len(row.prompt) <= 900 for size, part in parts for row in part)
    assert parts[-1][0] == 8, "short ones are written as many at a time as ever"
    assert readable(cut, 8) > 1 == readable(cut[-2:], 8)
    read: list[tuple[int, int]] = []
    admit = engines.Batch.admit

    def watched(batch, some):
        read.append((len(some), max(len(row.prompt) for row in some)))
        return admit(batch, some)

    monkeypatch.setattr(engines.Batch, "admit", watched)
    assert [answer.tokens for answer in plain.answer(asked, "pointed")] == [answer.tokens for answer in wanted]
    assert sum(some for some, _ in read) == len(asked)
    assert all(some == 1 or some * longest**2 <= 60_000 for some, longest in read)
