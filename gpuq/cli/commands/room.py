"""What `gpuq doctor` says before the disk is full."""

from __future__ import annotations

from gpuq.cli.render import memory
from gpuq.domain.quantities import duration_text
from gpuq.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls

# A disk that is nearly full, or full so soon that somebody should look after it before the next weekend is over.
LEAST_SHARE = 0.1
SOON_S = 3 * 86400.0


def warnings(client: Calls) -> list[tuple[str, str]]:
    """(what is wrong, what to do), none while there is room. Raises DaemonUnreachable."""
    try:
        seen = client.call("GET", "/disk")
    except NotFound:
        return []
    why = _why(seen)
    if why is None:
        return []
    hint = "`gpuq report disk` tells what takes the rest, `gpuq clean` removes what finished jobs left"
    return [(why + _largest(seen["largest"]), hint)]


def _why(seen: Any) -> str | None:
    free = f"{memory(seen['free_bytes'] / 2**20)} are free"
    if seen["full_in_s"] is not None and seen["full_in_s"] < SOON_S:
        return f"{free}, and at the rate of the last day the disk is full in {duration_text(seen['full_in_s'])}"
    share = seen["free_bytes"] / max(1, seen["total_bytes"])
    return f"{free}, {share:.0%} of the disk" if share < LEAST_SHARE else None


def _largest(users: Any) -> str:
    """`; most is of alice (12.1G) and bob (3.0G)`."""
    named = [f"{one['user']} ({memory(one['bytes'] / 2**20)})" for one in users if one["bytes"] >= 2**20]
    if not named:
        return ""
    return "; of what jobs left most is of " + (", ".join(named[:-1]) + " and " if named[1:] else "") + named[-1]
