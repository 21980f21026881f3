"""The client as every command uses it, and what to say when no daemon runs."""

from __future__ import annotations

import sys

from gpuq.client.client import Client

NOTICE = "gpuq: no daemon is running on this home: nothing starts until `gpuq up`"


def connect() -> Client:
    """A client of the daemon. It works straight on the database when no daemon runs, and says so on stderr."""
    return Client(on_direct=lambda: print(NOTICE, file=sys.stderr))


def say(text: str) -> None:
    """A message for a person."""
    print(text, file=sys.stderr)


def print_json(document: object) -> None:
    """Prints one JSON document to stdout."""
    import json

    # Whole to a pipe, in lines for a reader.
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))
