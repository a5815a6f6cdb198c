"""In: a trained folder, a file of tools, requests. Out: what the model would do about each, a JSON object a line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from toolformer.cli import USER_ERRORS, fail


def main(argv: Sequence[str] | None = None) -> None:
    """Reads ``argv`` (default: the command line); leaves with ``SystemExit(2)`` where the user can mend an error."""
    parser = argparse.ArgumentParser(
        prog="python -m toolformer.predict",
        description="Says which tools a trained model would call for a request, and how.",
        epilog='example: python -m toolformer.predict --tools tools.json "book a train ticket from Bath to York"',
    )
    parser.add_argument("requests", nargs="+", metavar="REQUEST", help="what a user says; several are answered in turn")
    parser.add_argument(
        "--tools", required=True, metavar="FILE", help="tools as for OpenAI, MCP's tools/list, OpenAPI 3"
    )
    parser.add_argument("--model", default="outputs/demo", metavar="FOLDER", help="a run or saved model (%(default)s)")
    parser.add_argument("--decoding", default="pointed", choices=("free", "constrained", "pointed"))
    parser.add_argument("--store", metavar="FOLDER", help="keep the gists there, so that tools are encoded once")
    args = parser.parse_args(argv)
    try:
        from toolformer.data.sources import own_tools

        tools, left_out = own_tools.read(args.tools)
        for line in left_out:
            print(f"left out: {line}", file=sys.stderr)

        from transformers.utils import logging

        from toolformer.inference.caller import ToolCaller
        from toolformer.records import call_to_json

        logging.disable_progress_bar()
        caller = ToolCaller.from_pretrained(args.model, store=args.store)
        caller.add_tools(tools)
        for request in args.requests:
            reply = caller.call(request, args.decoding)
            said = {"calls": [call_to_json(call) for call in reply.calls], "text": reply.text}
            print(json.dumps({**said, "confidence": reply.confidence}, ensure_ascii=False), flush=True)
    except USER_ERRORS as error:
        fail(error)


if __name__ == "__main__":
    main()
