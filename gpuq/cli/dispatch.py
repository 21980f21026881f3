"""From a parsed command line to the function that carries it out."""

from __future__ import annotations

import importlib

from gpuq.cli.parse.options import Args
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def dispatch(args: Args) -> int:
    """The exit code. Imports only the one module that the command needs."""
    args.check_words()
    module, _, function = args.command.handler.partition(":")
    handler: Callable[[Args], int] = getattr(importlib.import_module(f"gpuq.cli.commands.{module}"), function)
    try:
        return handler(args)
    except UsageError as error:
        raise _in_options(error, args) from None


# Fields of a submission whose option has another name.
_OPTIONS = {
    "max_retries": "retries",
    "time_limit_s": "time",
    "time_add_s": "time",
    "kill_grace_s": "kill_grace",
    "gpu_mem_mb": "gpu_mem",
    "cwd": "chdir",
}


def _in_options(error: UsageError, args: Args) -> UsageError:
    """A complaint about a field of a submission, as one about the option that gave it."""
    field, colon, complaint = error.message.partition(": ")
    name = _OPTIONS.get(field, field)
    option = next((option for option in args.command.options if option.name == name), None)
    if not colon or option is None or not args.given(name):
        if error.hint and "/openapi.json" in error.hint:
            # Nothing for somebody who typed a command.
            error.hint = f"see `gpuq {args.command.name} --help`"
        return error
    unit = " s" if field.endswith("_s") and complaint[-1:].isdigit() else ""
    return UsageError(f"{'/'.join(option.flags)}: {complaint}{unit}", hint=error.hint)
