"""`gpuq contrib`: files for other programs that come with gpuq."""

from __future__ import annotations

import os
import sys

from gpuq.cli.parse.options import Args
from gpuq.errors import UsageError

FILES = {"alerts": "alerts.yml", "grafana": "grafana.json"}


def contrib(args: Args) -> int:
    """Prints the file: `alerts` are rules for Prometheus, `grafana` is a board. Raises UsageError for another word."""
    import gpuq

    name = args.words[0]
    if name not in FILES:
        raise UsageError(f"contrib: there is no {name!r}", hint="there are: " + ", ".join(FILES))
    path = os.path.join(os.path.dirname(os.path.abspath(gpuq.__file__)), "contrib", FILES[name])
    with open(path, encoding="utf-8") as file:
        sys.stdout.write(file.read())
    return 0
