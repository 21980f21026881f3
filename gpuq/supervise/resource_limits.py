"""The submitter's limits and niceness, for the job alone.

Only soft limits are set, and never above the hard ones that the supervisor was given, so nothing here needs a right and
the job may raise them again.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence

_BY_NAME = {
    "as": resource.RLIMIT_AS, "core": resource.RLIMIT_CORE, "cpu": resource.RLIMIT_CPU, "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE, "memlock": resource.RLIMIT_MEMLOCK, "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC, "stack": resource.RLIMIT_STACK,
}  # fmt: skip
# What a supervisor can do with for the moment of a spawn, if they are not lower than this: a lower stack could end it,
# a lower number of files keep it from its log. Of other limits it could get no memory or no process any more.
_LENDABLE = {
    resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_MEMLOCK: 0, resource.RLIMIT_NOFILE: 64,
    resource.RLIMIT_STACK: 8 << 20,
}  # fmt: skip
# Of a resource: its number, the soft limit, the hard one.
Change = tuple[int, int, int]


def of_record(value: object) -> dict[int, int]:
    """Soft limits by the number of their resource, -1 for none; what is no limit is left out."""
    if not isinstance(value, dict):
        return {}
    return {
        _BY_NAME[name]: soft
        for name, soft in value.items()
        if name in _BY_NAME and isinstance(soft, int) and not isinstance(soft, bool) and -1 <= soft < 2**63
    }


def changes(limits: dict[int, int]) -> list[Change]:
    """What would have to be set in this process; nothing where it has these limits already."""
    found = []
    for number, wanted in limits.items():
        now, hard = resource.getrlimit(number)
        soft = hard if wanted == -1 else wanted if hard == -1 else min(wanted, hard)
        if soft != now:
            found.append((number, soft, hard))
    return found


def can_be_lent(wanted: Sequence[Change]) -> bool:
    """Whether a supervisor may have these itself while it spawns the job."""
    return all(number in _LENDABLE and (soft == -1 or soft >= _LENDABLE[number]) for number, soft, _ in wanted)


def apply(wanted: Sequence[Change]) -> None:
    """In this process. Raises OSError."""
    for number, soft, hard in wanted:
        resource.setrlimit(number, (soft, hard))


@contextlib.contextmanager
def lent(wanted: Sequence[Change]) -> Iterator[None]:
    """In this process, for the block."""
    before = [(number, *resource.getrlimit(number)) for number, _, _ in wanted]
    try:
        apply(wanted)
        yield
    finally:
        apply(before)


def is_nicer(nice: int | None) -> bool:
    """Whether that is nicer than this process is. Nobody is made less nice, which takes a right."""
    return nice is not None and nice > os.getpriority(os.PRIO_PROCESS, 0)
