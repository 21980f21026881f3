"""One request for jobs, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuq.domain.caller import Caller
from gpuq.domain.spec import JobSpec
from gpuq.ports.records import NewJob


@dataclass(frozen=True, slots=True)
class Asked:
    """`request_key` names the request, `fingerprint` is of what it asks for: the same key with another one is Refused.
    What `before_commit` raises leaves nothing of it stored."""

    specs: Sequence[JobSpec]
    caller: Caller
    request_key: str | None = None
    fingerprint: str | None = None
    before_commit: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Submitted:
    """`ids` in the order asked for; `stored` are the new ones among them as they were written. `claimed`: the one that
    was stored is being started already."""

    ids: list[int]
    stored: dict[int, NewJob]
    claimed: bool = False
