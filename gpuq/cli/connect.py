"""The client as every command uses it, and what to say when no daemon runs."""

from __future__ import annotations

import sys

from gpuq.client.calls import Calls

NOTICE = "gpuq: no daemon is running on this home: nothing starts until `gpuq up`"


def connect() -> Calls:
    """Straight on the database when no daemon runs, which stderr is told."""
    client = Calls(on_direct=lambda: print(NOTICE, file=sys.stderr))
    if client.address.trouble is not None:
        say(f"gpuq: {client.address.trouble}")
    if client.address.scheme == "http" and (danger := client.address.in_the_clear) is not None:
        say(f"gpuq: {danger}")
    return client


def say(text: str) -> None:
    """A message for a person, on one line: there may be other people's words in it."""
    from gpuq.cli.render import printable

    print(printable(text), file=sys.stderr)


def print_json(document: object) -> None:
    """Prints one JSON document to stdout."""
    import json

    # Whole to a pipe, in lines for a reader.
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))
