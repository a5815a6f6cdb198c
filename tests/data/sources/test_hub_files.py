"""In: a server of our own that answers as the hub does. Out: whether the error says how to get access."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from toolformer.data.sources.hub_files import read_rows

GATE = {
    "gated": (401, {"X-Error-Code": "GatedRepo"}, "accept the terms on https://huggingface.co/datasets/some/rows"),
    "unknown": (404, {"X-Error-Code": "RepoNotFound"}, "cannot be reached"),
}


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The address of a hub that answers in one way, and what the error must say."""
    status, headers, said = GATE[request.param]

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):  # noqa: N802
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", said
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("hub", GATE, indirect=True)
def test_the_error_says_how_to_get_the_rows(hub: tuple[str, str], tmp_path: Path):
    address, said = hub
    code = "import sys; from pathlib import Path; from toolformer.data.sources.hub_files import read_rows as r\n"
    code += "try: r(Path(sys.argv[1]), 'some/rows', 'data.json')\nexcept FileNotFoundError as error: print(error)"
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert said in done.stdout and "`hf auth login`" in done.stdout and str(tmp_path / "data.json") in done.stdout


def test_a_local_file_is_read(tmp_path: Path):
    (tmp_path / "data.json").write_text("[1]")
    assert read_rows(tmp_path, "some/rows", "data.json") == [1]
