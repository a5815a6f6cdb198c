"""In: broken input of many kinds. Out: whether each is one line with file, place, value, remedy, and nothing is left.

A case prepares its broken input in a folder and returns the action that meets it: a command, as the command line would
call it, or a public function, whose error is put into the line that the command line would print.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolformer.calls import render
from toolformer.cli import USER_ERRORS, one_line
from toolformer.curriculum import main as curriculum
from toolformer.evaluate import main as evaluate
from toolformer.prepare import main as prepare
from toolformer.records import Example, Message, Tool, ToolCall
from toolformer.report import main as report
from toolformer.schemas import tool_from_mcp, tool_from_openai
from toolformer.train import main as train

ROOT = Path(__file__).parents[1]
Action = Callable[[], Any]
CASES: list[Any] = []


def case(*parts: str) -> Callable[[Callable[[Path], Action]], Callable[[Path], Action]]:
    """Registers a case with what its line must contain."""

    def wrap(make: Callable[[Path], Action]) -> Callable[[Path], Action]:
        CASES.append(pytest.param(make, parts, id=make.__name__))
        return make

    return wrap


# ---- tool schemas and calls


def schema(**changes: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"name": "get_weather", "description": "Weather of a city.", "parameters": {**parameters, **changes}}


@case("tools.json:3", "name is None", "text")
def tool_without_a_name(_):
    return lambda: tool_from_openai({"description": "x", "parameters": {}}, "tools.json:3")


@case("tools.json:3", "get_weather", "parameters.properties.city.type", "'strng'", "did you mean 'string'")
def mistyped_type(_):
    return lambda: tool_from_openai(schema(properties={"city": {"type": "strng"}}), "tools.json:3")


@case("tools.json:3", "parameters.required is 'town'", "no such property")
def required_parameter_that_does_not_exist(_):
    return lambda: tool_from_openai(schema(required=["town"]), "tools.json:3")


@case("tools.json:3", "parameters is ", "object")
def parameters_that_are_a_list(_):
    return lambda: tool_from_openai({**schema(), "parameters": ["city"]}, "tools.json:3")


@case("tools.json:3", "enum is []", "at least one value")
def enum_without_values(_):
    return lambda: tool_from_openai(schema(properties={"city": {"enum": []}}), "tools.json:3")


@case("tools.json:3", "get_weather", "no JSON", "use plain JSON values")
def default_that_is_no_json(_):
    return lambda: tool_from_openai(schema(properties={"city": {"default": float("nan")}}), "tools.json:3")


@case("tools.json:3", "$ref is '#/$defs/city'", "same schema")
def reference_to_nowhere(_):
    row = {"name": "a", "description": "", "inputSchema": {"properties": {"city": {"$ref": "#/$defs/city"}}}}
    return lambda: tool_from_mcp(row, "tools.json:3")


@case("'ping'", "no JSON", "use plain JSON values")
def call_with_an_argument_that_is_no_json(_):
    return lambda: render([ToolCall("ping", {"host": {"a", "b"}})])


# ---- corpora

WEATHER, TIME = tool_from_openai(schema(), "x:1"), Tool("get_time", "Time.", {"type": "object", "properties": {}})
ROW = Example(
    id="row-7",
    messages=(Message("user", "weather in Oslo"),),
    tools=(WEATHER.id, TIME.id),
    calls=(ToolCall("get_weather", {"city": "Oslo"}),),
    reply="",
    source="test",
)


def write(folder: Path, *rows: Example, tools: tuple[Tool, ...] = (WEATHER, TIME)):
    from toolformer.data.corpus import write_corpus

    return write_corpus(folder / "corpus", tools, {"train": rows}, {})


def open_corpus(folder: Path):
    from toolformer.data.corpus import Corpus

    return Corpus.open(folder / "corpus")


@case("corpus: holds no corpus", "toolformer.prepare")
def corpus_that_is_not_there(folder):
    return lambda: open_corpus(folder)


@case("corpus.json:2: not JSON", "prepare the corpus again")
def corpus_description_that_is_broken_json(folder):
    write(folder, ROW)
    (folder / "corpus/corpus.json").write_text('{"format": 2,\n"rows": }')
    return lambda: open_corpus(folder)


@case("corpus.json:1: format is 99", "prepare the corpus again")
def corpus_of_another_format(folder):
    write(folder, ROW)
    (folder / "corpus/corpus.json").write_text('{"format": 99}')
    return lambda: open_corpus(folder)


@case("tools.parquet", "cannot be read", "prepare the corpus again")
def catalog_that_is_cut_off(folder):
    write(folder, ROW)
    path = folder / "corpus/tools.parquet"
    path.write_bytes(path.read_bytes()[:100])
    return lambda: open_corpus(folder)


@case("train.arrow", "its SHA-256 is", "prepare the corpus again")
def rows_of_which_one_bit_has_changed(folder):
    path = write(folder, ROW).folder / "train.arrow"
    path.write_bytes(path.read_bytes().replace(b"weather in Oslo", b"weather in Oslp"))
    return lambda: open_corpus(folder).split("train")


@case("corpus.json:1: is not as it was written", "prepare the corpus again")
def corpus_description_that_was_edited(folder):
    path = write(folder, ROW).folder / "corpus.json"
    path.write_text(path.read_text().replace('"train": 1', '"train": 2'))
    return lambda: open_corpus(folder)


@case("corpus:train: row row-7", "gold call is get_news", "['get_weather', 'get_time']", "add the tool")
def gold_that_is_not_among_the_tools(folder):
    return lambda: write(folder, replace(ROW, calls=(ToolCall("get_news", {}),)))


@case("corpus:train: row row-7", "get_weather twice", "qualify")
def one_name_twice_among_the_tools_of_a_row(folder):
    other = replace(WEATHER, description="Another.")
    return lambda: write(folder, replace(ROW, tools=(WEATHER.id, other.id)), tools=(WEATHER, other))


@case("corpus:train: row row-7", "is not in the catalog", "add it")
def tool_that_is_not_in_the_catalog(folder):
    return lambda: write(folder, replace(ROW, tools=(*ROW.tools, "0" * 16)))


@case("corpus", "2 tools with 1 ids", "drop the repeated")
def one_tool_twice_in_the_catalog(folder):
    return lambda: write(folder, tools=(TIME, TIME))


@case("corpus: split train has 0 rows", "prepare")
def empty_catalog(folder):
    from toolformer.data.corpus_rows import CorpusRows

    corpus = write(folder, tools=())
    return lambda: CorpusRows(corpus)


@case("corpus: split is test_unsen", "there are train")
def split_that_is_not_there(folder):
    corpus = write(folder, ROW)
    return lambda: corpus.split("test_unsen")


# ---- sources


@case("nothing: holds no SGD data", "make data")
def folder_without_the_dialogues(folder):
    return lambda: prepare(["corpus=sgd", f"corpus.root={folder}/nothing", "download=false"])


@case("schema.json:1: not JSON", "download the file again")
def dialogues_that_are_broken_json(folder):
    (folder / "sgd/train").mkdir(parents=True)
    (folder / "sgd/train/schema.json").write_text("[{]")
    return lambda: prepare(["corpus=sgd", f"corpus.root={folder}", "download=false"])


@case("corpus.rules: held_back is 1.5", "less than 1")
def share_above_one(folder):
    (folder / "sgd/train").mkdir(parents=True)
    (folder / "sgd/train/schema.json").write_text("[]")
    return lambda: prepare(["corpus=sgd", f"corpus.root={folder}", "corpus.rules.held_back=1.5", "download=false"])


def world(folder: Path, domain: str, **settings: Any) -> Action:
    from toolformer.data.toolworld import ToolWorld

    words = ROOT / "toolformer/data/toolworld/words"
    shutil.copytree(words, folder / "world/words")
    (folder / "world/domains").mkdir()
    (folder / "world/domains/boats.yaml").write_text(domain)
    return lambda: ToolWorld(folder=folder / "world", **settings)


@case("boats.yaml:3: YAML is broken", "correct the line")
def domain_file_that_is_broken_yaml(folder):
    return world(folder, "domain: boats\ntools: [a, b\nabout: [")


@case("boats.yaml:", "is", "'harbor'", "use one of")
def domain_file_with_an_unknown_slot(folder):
    return world(
        folder,
        "domain: boats\nabout: boats\nvalues: {pier: [a, b, c, d, e, f, g, h, i, j, k, l]}\ntools:\n- name: rent_boat\n"
        "  noun: boat\n  description: Rent a boat at a pier for some hours of a sunny day.\n"
        "  requests: [rent a boat, get me a boat, hire a boat, book a boat, reserve a boat, take out a boat,"
        " rent the boat, charter a boat]\n"
        '  parameters:\n    pier: {slot: harbor, description: Where it lies, say: ["at {}", "from {}"]}\n',
    )


@case("pseudo_share is 7", "0..1")
def share_of_pseudo_words_above_one(folder):
    from toolformer.data.toolworld import ToolWorld

    return lambda: ToolWorld(pseudo_share=7)


@case("tools_per_request is 8", "pool_size")
def pool_smaller_than_a_request_needs(folder):
    from toolformer.data.toolworld import ToolWorld

    return lambda: ToolWorld().batch(0, batch_size=1, pool_size=4, tools_per_request=8)


# ---- models and tokenizers

TINY = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


def backbone(folder: Path, **shape: Any) -> Path:
    from toolformer.model import ToolFormerConfig, ToolFormerMicro

    ToolFormerMicro(ToolFormerConfig(**TINY, encoder_layers=1, **shape)).save_pretrained(folder / "backbone")
    return folder / "backbone"


def qwen(folder: Path) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    Qwen2ForCausalLM(Qwen2Config(**{**TINY, "num_hidden_layers": 3})).save_pretrained(folder / "qwen")
    return folder / "qwen"


def load(path: Path) -> Any:
    from toolformer.model import load_backbone

    return load_backbone(str(path))


def convert(path: Path, **shape: Any) -> Any:
    from toolformer.model import from_qwen

    return from_qwen(str(path), **{"decoder_layers": 2, "encoder_layers": 1, "decoder_offset": 1, **shape})


@case("model.gate is 'sigmoid'", "use one of tanh, none")
def unknown_gate(folder):
    return lambda: backbone(folder, gate="sigmoid")


@case("model.num_gists is 0", "at least 1")
def no_gists(folder):
    return lambda: backbone(folder, num_gists=0)


@case("nowhere: no such model folder", "give a folder")
def model_folder_that_is_not_there(folder):
    return lambda: load(folder / "nowhere")


@case("backbone", "config.json", "give a model folder")
def model_description_that_is_broken_json(folder):
    path = backbone(folder)
    (path / "config.json").write_text("{")
    return lambda: load(path)


@case("bert: model_type is 'bert'", "Qwen2")
def foreign_checkpoint(folder):
    from transformers import BertConfig

    BertConfig().save_pretrained(folder / "bert")
    return lambda: convert(folder / "bert")


@case("qwen: model_type is 'qwen2'", "toolformer_micro")
def untrained_checkpoint_where_a_trained_one_is_wanted(folder):
    path = qwen(folder)
    return lambda: load(path)


@case("backbone", "mismatched", "gist", "config.json")
def number_of_gists_that_differs_from_the_checkpoint(folder):
    path = backbone(folder, num_gists=4)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_gists": 8}))
    return lambda: load(path)


@case("qwen: model.decoder_offset 2 + 2 layers", "its 3 layers")
def more_layers_than_the_checkpoint_has(folder):
    path = qwen(folder)
    return lambda: convert(path, decoder_offset=2)


@case("qwen", "model.safetensors is missing", "safetensors format")
def checkpoint_without_weights(folder):
    path = qwen(folder)
    (path / "model.safetensors").unlink()
    return lambda: convert(path)


@case("qwen", "model.safetensors")
def checkpoint_that_is_cut_off(folder):
    file = qwen(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return lambda: convert(file.parent)


@case("nowhere: no such tokenizer folder")
def tokenizer_that_is_not_there(folder):
    from toolformer.data.prompts import load_tokenizer

    return lambda: load_tokenizer(str(folder / "nowhere"))


@case("tokenizer", "<tool_call>", "single tokens", "use a Qwen2.5 tokenizer")
def tokenizer_without_the_marks(folder):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from toolformer.data.prompts import Prompts, load_tokenizer

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder / "tokenizer")
    return lambda: Prompts(load_tokenizer(str(folder / "tokenizer")))


# ---- training

QUICK = ["tokenizer.rows=20", "tokenizer.vocab_size=400", "progress=false", "stage.steps=1", "stage.validation_rows=2"]


def trained(folder: Path, *, more_tokens: int = 0, **shape: Any) -> Path:
    """A backbone with its tokenizer, as a stage leaves it; ``more_tokens`` make the tokenizer too large for it."""
    from toolformer.data.tokenizer import train_tokenizer
    from toolformer.model import ToolFormerConfig, ToolFormerMicro

    tokenizer = train_tokenizer(["a b c"], vocab_size=300)
    config = ToolFormerConfig(**{**TINY, "vocab_size": len(tokenizer)}, encoder_layers=1, **shape)
    ToolFormerMicro(config).save_pretrained(folder / "backbone")
    tokenizer.add_tokens([f"<{n}>" for n in range(more_tokens)])
    tokenizer.save_pretrained(folder / "backbone")
    return folder / "backbone"


def same_shape(path: Path) -> list[str]:
    """The overrides that make model=nano the shape of a backbone."""
    config = json.loads((path / "config.json").read_text())
    keys = yaml.safe_load((ROOT / "conf/model/nano.yaml").read_text())
    return [f"model.{key}={json.dumps(config[key])}" for key in keys if config.get(key) is not None]


@case("nowhere: no such model folder", "give a folder")
def warm_start_that_is_not_there(folder):
    return lambda: train([*QUICK, f"warm_start={folder}/nowhere"])


@case("qwen: model_type is 'qwen2'", "toolformer_micro")
def warm_start_from_a_foreign_checkpoint(folder):
    path = qwen(folder)
    return lambda: train([*QUICK, f"warm_start={path}"])


@case("backbone", "num_gists is 4", "model.num_gists is 8", "set model.num_gists=4")
def warm_start_of_another_number_of_gists(folder):
    path = trained(folder, num_gists=4)
    return lambda: train([*QUICK, *same_shape(path), f"warm_start={path}", "model.num_gists=8"])


@case("backbone", "num_gists is 4", "set model.num_gists=4")
def curriculum_from_weights_of_another_shape(folder):
    path = trained(folder, num_gists=4)
    quick = [text for text in QUICK if not text.startswith("stage.")]
    return lambda: curriculum([*quick, *same_shape(path), f"warm_start={path}", "model.num_gists=8"])


@case("backbone: the tokenizer has", "the model ", "take the tokenizer that was saved with the weights")
def tokenizer_that_does_not_fit_the_model(folder):
    path = trained(folder, more_tokens=5)
    return lambda: train([*QUICK, *same_shape(path), f"warm_start={path.parent}"])  # a stage's folder will do


@case("nowhere: no such tokenizer folder")
def tokenizer_folder_that_is_not_there(folder):
    return lambda: train([*QUICK[2:], "tokenizer=qwen", f"tokenizer.path={folder}/nowhere"])


@case("nowhere: no such model folder", "give a folder")
def pretrained_weights_that_are_not_there(folder):
    return lambda: train([*QUICK, "model=qwen2.5-0.5b", f"model.source={folder}/nowhere"])


@case("optimizer is 'sgd'", "use adamw or muon")
def unknown_optimizer(_):
    return lambda: train([*QUICK, "stage.module.optimizer=sgd"])


@case("freeze", "'decodr.*' matches no parameter")
def freezing_what_does_not_exist(_):
    return lambda: train([*QUICK, "stage.module.freeze=[decodr.*]"])


@case("freeze leaves nothing to train")
def freezing_everything(_):
    return lambda: train([*QUICK, "stage.module.freeze=['*']"])


@case("mask_share is 2", "between 0 and 1")
def share_of_masked_names_above_one(_):
    return lambda: train([*QUICK, "stage.batches.mask_share=2"])


@case("tools_per_request is 100", "between 1 and")
def more_tools_a_request_than_in_the_pool(_):
    return lambda: train([*QUICK, "split.tools_per_request=100"])


@case("['tool_caling']", "tool_calling")
def stage_that_does_not_exist(_):
    return lambda: curriculum(["order=[tool_caling]"])


@case("nothing: holds no SGD data", "make data")
def training_on_dialogues_that_are_not_there(folder):
    return lambda: train([*QUICK, "data=sgd", f"data.root={folder}/nothing"])


@case("trainer", "gpu")
def accelerator_that_is_not_there(_):
    return lambda: train([*QUICK, "trainer.accelerator=gpuu"])


# ---- evaluation

SMALL = ["evaluation.rows=4", "evaluation.calibration_rows=0", "progress=false"]


@case("checkpoint is not set", "add checkpoint=...")
def evaluation_of_nothing(_):
    return lambda: evaluate([])


@case("nowhere", "no such")
def evaluation_of_a_checkpoint_that_is_not_there(folder):
    return lambda: evaluate([*SMALL, f"checkpoint={folder}/nowhere", "data=toolworld", "split=standard"])


@case("qwen", "model_type is 'qwen2'", "toolformer_micro")
def evaluation_of_a_foreign_checkpoint(folder):
    path = qwen(folder)
    return lambda: evaluate([*SMALL, f"checkpoint={path}", "data=toolworld", "split=standard"])


@case("backbone", "no settings.yaml", "add data=")
def evaluation_without_knowing_the_data(folder):
    path = trained(folder)
    return lambda: evaluate([*SMALL, f"checkpoint={path}"])


@case("mine.jsonl", "No such file")
def own_rows_that_are_not_there(folder):
    path = trained(folder)
    return lambda: evaluate([*SMALL, f"checkpoint={path}", "split=standard", f"rows={folder}/mine.jsonl"])


@case("mine.jsonl:2", "calls[0]", "an object with name and arguments is wanted")
def own_rows_of_another_shape(folder):
    path, tool = trained(folder), schema()
    row = {"tools": [tool], "messages": [{"role": "user", "content": "hi"}], "calls": []}
    lines = [json.dumps({**row, "calls": calls}) for calls in ([], ["get_weather"])]
    (folder / "mine.jsonl").write_text("\n".join(lines))
    return lambda: evaluate([*SMALL, f"checkpoint={path}", "split=standard", f"rows={folder}/mine.jsonl"])


@case("evaluation.decodings", "'guessed'", "free, constrained, pointed")
def unknown_decoding(folder):
    path = trained(folder)
    chosen = ["data=toolworld", "split=standard", "evaluation.decodings=[guessed]"]
    return lambda: evaluate([*SMALL, f"checkpoint={path}", *chosen])


@case("split is 'test_unsen'", "test_unseen")
def evaluation_on_an_unknown_split(folder):
    path = trained(folder)
    chosen = ["data=toolworld", "split=standard", "evaluation.splits=[test_unsen]"]
    return lambda: evaluate([*SMALL, f"checkpoint={path}", *chosen])


# ---- run folders


@case("nowhere: no such run folder", "make demo")
def report_of_a_run_that_is_not_there(folder):
    return lambda: report([f"run={folder}/nowhere"])


@case("metrics.json: not JSON", "run the evaluation again")
def report_of_broken_metrics(folder):
    (folder / "run").mkdir()
    (folder / "run/metrics.json").write_text('{"splits": {')
    return lambda: report([f"run={folder}/run"])


@case("metrics.csv:3", "train/loss is 'nought'", "a number")
def report_of_a_log_with_a_word_for_a_number(folder):
    (folder / "run").mkdir()
    (folder / "run/metrics.csv").write_text("step,train/loss\n1,0.5\n2,nought\n")
    return lambda: report([f"run={folder}/run"])


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.mark.parametrize(("make", "parts"), CASES)
def test_bad_input(make: Callable[[Path], Action], parts: tuple[str, ...], tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOOLFORMER_DEBUG", raising=False)
    action = make(tmp_path)
    before = everything(tmp_path)
    capsys.readouterr()
    try:
        action()
    except SystemExit as stop:
        assert stop.code == 2
        line = capsys.readouterr().err.strip()
    except USER_ERRORS as error:
        line = one_line(error)
        assert "\n" not in str(error), "a message of ours is one line"
    else:
        pytest.fail("it was accepted")
    assert "\n" not in line and len(line) < 600, line
    for part in parts:
        assert part in line, line
    left = [
        path
        for path in everything(tmp_path)
        if path not in before and Path(path).name not in ("outputs", "corpora", ".lock")
    ]
    assert not left, "partial output"


def test_there_are_enough_kinds():
    assert len(CASES) >= 20


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["report", "run=nowhere"], ["nowhere: no such run folder"]),
        (["prepare", "corpus=sgd", "corpus.root=nowhere", "download=false"], ["nowhere: holds no SGD data"]),
    ],
)
def test_as_a_process(command: list[str], parts: list[str], tmp_path):
    line = [sys.executable, "-m", f"toolformer.{command[0]}", *command[1:]]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ") and all(part in done.stderr for part in parts)
