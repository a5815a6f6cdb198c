"""In: the source files, and files from strangers. Out: whether nothing that a stranger wrote is ever run."""

import ast
import html.parser
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folder import write_run

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "toolformer").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "tarfile"}
BARE = {"eval", "exec", "compile", "__import__"}
METHODS = {"system", "popen", "extractall", "extract", "unpack_archive", "read_pickle", "unsafe_load", "full_load"}
METHODS |= {"load_from_checkpoint"}
SAFE_YAML = {"SafeLoader", "CSafeLoader", "_Yaml"}


def dangers(code: str) -> Iterator[str]:
    """Whatever in the code could run what it reads."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {word.arg: ast.unparse(word.value) for word in node.keywords}
        owner, _, last = name.rpartition(".")
        if last in (METHODS if owner else BARE):
            yield f"{node.lineno}: calls {name}"
        if name == "torch.load" and said.get("weights_only") != "True":
            yield f"{node.lineno}: torch.load without weights_only=True"
        if name == "yaml.load" and said.get("Loader", ast.unparse(node.args[-1])).split(".")[-1] not in SAFE_YAML:
            yield f"{node.lineno}: yaml.load with another than a safe loader"
        if last == "from_pretrained" and owner.startswith("Auto") and said.get("trust_remote_code") != "False":
            yield f"{node.lineno}: {name} may ask to run code"
        if said.get("trust_remote_code", "False") != "False" or said.get("allow_pickle", "False") != "False":
            yield f"{node.lineno}: {name} runs what it loads"
        if said.get("shell", "False") != "False":
            yield f"{node.lineno}: {name} by a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_be_run(path: Path):
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from tarfile import open",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, yaml.UnsafeLoader)",
        "AutoModel.from_pretrained(path)",
        "library.load(path, trust_remote_code=True)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "zipfile.ZipFile(path).extractall(folder)",
        "Stage.load_from_checkpoint(path)",
    ],
)
def test_the_check_sees_what_it_looks_for(code: str):
    assert len(list(dangers(code))) == 1


def test_the_loader_for_own_tools_is_a_safe_one(tmp_path: Path):
    from toolformer.data.sources.own_tools import read

    path = tmp_path / "tools.yaml"
    path.write_text(f"- !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n")
    with pytest.raises(ValueError, match="tools.yaml: no YAML: could not determine a constructor"):
        read(path)
    assert not (tmp_path / "ran").exists()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_is_refused_and_its_code_not_run(tmp_path: Path):
    import torch

    from toolformer.stages.checkpoints import WholeFiles

    path, ran = tmp_path / "step-00000001.ckpt", tmp_path / "ran"
    torch.save({"state_dict": {}, "callbacks": Evil(ran)}, path)
    with pytest.raises(ValueError, match="step-00000001.ckpt: is no checkpoint of this program"):
        WholeFiles().load_checkpoint(path, weights_only=False)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Evil(ran)))
    assert ran.exists(), "the test's own: unpickled, it would have run"


def test_weights_in_a_pickle_are_not_read(tmp_path: Path):
    import torch
    from tiny_caller import config

    from toolformer.model import ToolFormerMicro, load_backbone

    folder = tmp_path / "backbone"
    ToolFormerMicro(config()).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        load_backbone(str(folder))
    assert not (tmp_path / "ran").exists()


# ---- the report

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' onload=alert(1) </script></style></title>-->&lt;"
STRUCTURE = {"split", "variant", "decoding", "memory"}


def spoiled(value: Any, key: str = "") -> Any:
    """Every text with markup behind it, keys of arguments and settings too, but for what gives the report its shape."""
    if isinstance(value, dict):
        free = key in ("arguments", "accepted", "settings", "provenance")
        return {f"{k}{MARKUP}" if free else k: spoiled(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [spoiled(item, key) for item in value]
    return f"{value}{MARKUP}" if isinstance(value, str) and key not in STRUCTURE else value


class Elements(html.parser.HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text outside of them."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_whatever_a_run_says_is_text_in_its_report(tmp_path: Path):
    from toolformer.reporting.comparison import write_comparison
    from toolformer.reporting.page import write_report

    run = write_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "evaluation/predictions.jsonl").read_text().splitlines()]
    lines = [spoiled({**line, "stratum": "small_talk"}) for line in lines]
    (run / "evaluation/predictions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["provenance"] = spoiled(metrics["provenance"], "provenance")
    for path in (run / "metrics.json", run / "evaluation/metrics.json"):
        path.write_text(json.dumps(metrics))
    (run / "settings.yaml").write_text(json.dumps(spoiled({"seed": 7, "model": {"kind": "nano"}}, "settings")))
    plain = Elements(write_report(write_run(tmp_path / "plain")).read_text())
    for page in (write_report(run), write_comparison([run, run], tmp_path)):
        elements = Elements(page.read_text())
        kinds = {tag for tag, _ in elements.found}
        assert [tag for tag, _ in elements.found].count("script") <= 1
        assert kinds <= {tag for tag, _ in plain.found} | {"a", "b", "i", "small", "br"}
        assert not any(key.startswith("on") for _, attributes in elements.found for key in attributes)
        assert not any((a.get("src") or a.get("href") or "").startswith(("x", "javascript")) for _, a in elements.found)
    assert MARKUP in "".join(Elements(write_report(run).read_text()).said)


def test_archives_are_only_looked_into(tmp_path: Path):
    """A checkpoint is a zip file; names in it that lead out of the folder lead nowhere."""
    from toolformer.stages.checkpoints import WholeFiles, fault_of

    path, written = tmp_path / "inner" / "step-00000001.ckpt", io.BytesIO()
    path.parent.mkdir()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("../../escaped", "x")
    path.write_bytes(written.getvalue())
    assert fault_of(path) is None
    with pytest.raises(ValueError, match="is no checkpoint of this program"):
        WholeFiles().load_checkpoint(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["inner", "step-00000001.ckpt"]
