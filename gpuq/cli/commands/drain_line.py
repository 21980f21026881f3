"""A planned drain in one line, as `gpuq drain`, `gpuq status` and `gpuq gpus` tell it."""

from __future__ import annotations

from gpuq.cli.render import printable, when

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def drain_line(drain: Any) -> str:
    """`the machine is drained at 14:00 until 16:00 by root: new driver`, in local time."""
    gpus = drain["gpus"]
    what = "the machine is" if gpus is None else f"gpu {gpus[0]} is" if len(gpus) == 1 else f"gpus {_list(gpus)} are"
    text = f"{what} drained {'since' if drain['begun'] else 'at'} {when(drain['at'])}"
    if drain["until"]:
        text += f" until {when(drain['until'])}"
    return printable(f"{text} by {drain['by']}" + (f": {drain['reason']}" if drain["reason"] else ""))


def _list(gpus: Any) -> str:
    return ",".join(map(str, gpus))
