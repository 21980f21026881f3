"""`gpuq monitor`: what it needs, and the beginning of the screen."""

from __future__ import annotations

import importlib.util
import os
import sys

from gpuq.cli.connect import say
from gpuq.client.calls import Calls
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.cli.parse.options import Args


def monitor(args: Args) -> int:
    """Shows the screen until `q`. Raises UsageError without a terminal or without Textual, and DaemonUnreachable when
    no daemon answers; one that goes away later is waited for."""
    if importlib.util.find_spec("textual") is None:
        raise UsageError(
            "the monitor needs Textual, which is not installed", hint="pip install 'gpu-job-queue[tui]' installs it"
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("the monitor needs a terminal", hint="`gpuq status` prints the queue anywhere")
    client = Calls(direct=False)
    if client.address.trouble is not None:
        say(f"gpuq: {client.address.trouble}")
    client.require_daemon("the monitor")
    me = client.whoami()
    from gpuq.cli.commands.monitor.app import Monitor

    screen = Monitor(client, me["user"], readonly=args.flag("readonly"))
    screen.run()
    if screen.failure is not None:
        raise screen.failure
    return screen.return_code or 0
