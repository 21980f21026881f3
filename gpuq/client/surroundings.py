"""What a job takes over from the process that submits it, beside its environment."""

from __future__ import annotations

import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Of a job that says nothing.
_UMASK = 0o022
# These always go along, others only if somebody has set them.
_ALWAYS = (
    ("core", resource.RLIMIT_CORE), ("memlock", resource.RLIMIT_MEMLOCK), ("nofile", resource.RLIMIT_NOFILE),
    ("stack", resource.RLIMIT_STACK),
)  # fmt: skip
_IF_SET = (
    ("as", resource.RLIMIT_AS), ("cpu", resource.RLIMIT_CPU), ("data", resource.RLIMIT_DATA),
    ("fsize", resource.RLIMIT_FSIZE),
)  # fmt: skip


def surroundings() -> dict[str, Any]:
    """Fields of a submission: the umask, soft limits (-1: none) and the niceness of this process, where they are not as
    they would be anyhow."""
    limits = {name: resource.getrlimit(number)[0] for name, number in _ALWAYS}
    for name, number in _IF_SET:
        soft = resource.getrlimit(number)[0]
        if soft != resource.RLIM_INFINITY:
            limits[name] = soft
    found: dict[str, Any] = {"limits": limits}
    umask = _umask()
    if umask != _UMASK:
        found["umask"] = umask
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice > 0:
        found["nice"] = nice
    return found


def _umask() -> int:
    """Other threads may be making files, so it is asked for and not set."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line[6:], 8) & 0o777
    except (OSError, ValueError):
        pass
    return _UMASK
