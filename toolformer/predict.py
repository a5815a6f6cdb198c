"""In: a trained folder, a file of tools, requests. Out: what the model would do about each, a JSON object a line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolformer.cli import USER_ERRORS, fail

if TYPE_CHECKING:
    from toolformer.inference.caller import Conversation, Reply, ToolCaller
    from toolformer.records import Message

TOGETHER = 128  # requests of a file that are answered before the first of them is printed


def parser() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    made = argparse.ArgumentParser(
        prog="python -m toolformer.predict",
        description="Says which tools a trained model would call for a request, and how.",
        epilog='example: python -m toolformer.predict --tools tools.json "book a train ticket from Bath to York"',
    )
    made.add_argument("requests", nargs="*", metavar="REQUEST", help="what a user says; several are answered in turn")
    made.add_argument("--tools", required=True, metavar="FILE", help="tools as for OpenAI, MCP's tools/list, OpenAPI 3")
    made.add_argument(
        "--requests",
        dest="file",
        metavar="FILE",
        help='requests, one a line: "text" or {"messages": [...]}; - is stdin',
    )
    made.add_argument("--model", default="outputs/demo", metavar="FOLDER", help="a run or saved model (%(default)s)")
    made.add_argument("--decoding", default="pointed", choices=("free", "constrained", "pointed"))
    made.add_argument("--store", metavar="FOLDER", help="keep the gists there, so that tools are encoded once")
    made.add_argument("--device", default="cpu", help="where the model runs, such as cuda (%(default)s)")
    made.add_argument(
        "--top-k", type=int, metavar="K", help="attend only to the K tools nearest to a request (64 above 256 tools)"
    )
    made.add_argument("--stream", action="store_true", help="show an answer on stderr while it is written")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Reads ``argv`` (default: the command line); leaves with ``SystemExit(2)`` where the user can mend an error."""
    arguments = parser()
    args = arguments.parse_args(argv)
    if bool(args.requests) == (args.file is not None):
        arguments.error("give requests, or a file of them with --requests")
    try:
        from toolformer.data.sources import own_tools

        tools, left_out = own_tools.read(args.tools)
        for line in left_out:
            print(f"left out: {line}", file=sys.stderr)
        requests: list[Conversation] = args.requests or list(read(args.file))

        from transformers.utils import logging

        from toolformer.inference.caller import ToolCaller
        from toolformer.records import call_to_json

        logging.disable_progress_bar()
        routed = {} if args.top_k is None else {"route_above": args.top_k, "k": args.top_k}
        caller = ToolCaller.from_pretrained(args.model, store=args.store, device=args.device, **routed)
        caller.add_tools(tools)
        for reply in replies(caller, requests, args.decoding, args.stream):
            said = {"calls": [call_to_json(call) for call in reply.calls], "text": reply.text}
            print(json.dumps({**said, "confidence": reply.confidence}, ensure_ascii=False), flush=True)
    except USER_ERRORS as error:
        fail(error)


def replies(caller: ToolCaller, requests: Sequence[Conversation], decoding: Any, stream: bool) -> Iterator[Reply]:
    """In the order of the requests: many together, or each as it is written."""
    if not stream:
        for start in range(0, len(requests), TOGETHER):
            yield from caller.batch_call(requests[start : start + TOGETHER], decoding)
        return
    for request in requests:
        written = caller.stream(request, decoding)
        for piece in written:
            print(piece, end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        yield written.reply


def read(path: str) -> Iterator[list[Message]]:
    """The requests of a file of JSON lines, empty ones left out; ``-`` is standard input.

    Raises:
        ValueError: a line is neither a text nor an object with messages, or there is none.
    """
    from toolformer.data.sources import own
    from toolformer.data.sources.files import strict_json

    name, remedy = "stdin" if path == "-" else path, 'give "text" or {"messages": [...]} on each line'
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    lines = [(f"{name}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{name}: has no requests; {remedy}")
    for place, line in lines:
        found = strict_json(line, f"{place}: no JSON", remedy)
        turns = found.get("messages") if isinstance(found, dict) else [{"role": "user", "content": found}]
        if not isinstance(turns, list) or not turns or not isinstance(found, dict | str):
            raise ValueError(f"{place}: is {line!r:.60}; {remedy}")
        yield [own.message(turn, f"{place}: messages[{i}]") for i, turn in enumerate(turns)]


if __name__ == "__main__":
    main()
