"""From a parsed command line to the function that carries it out."""

from __future__ import annotations

import importlib

from gpuq.cli.options import Args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def dispatch(args: Args) -> int:
    """The exit code. Imports only the one module that the command needs."""
    args.check_words()
    module, _, function = args.command.handler.partition(":")
    handler: Callable[[Args], int] = getattr(importlib.import_module(f"gpuq.cli.{module}"), function)
    return handler(args)
