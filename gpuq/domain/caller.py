"""Who asks: taken from the kernel (Unix socket peer) or from a token, never from a request body."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Who did it in the history, where nobody asked for it.
ACTOR = "gpuq"


class Scope(StrEnum):
    """What a token is good for; each includes those before it. `admin` makes nobody an administrator: it leaves an
    administrator the rights of one."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def covers(self, other: Scope) -> bool:
        """Whether a token of this scope may do what takes `other`."""
        return _WIDTH[self] >= _WIDTH[other]


_WIDTH = {scope: place for place, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class Caller:
    """`uid` and `gid` are None for a token's user who has no account, on a daemon that is not root's. `admin`: has the
    rights of an administrator in this call. `scope`: of the token; None when the kernel has said who it is."""

    user: str
    uid: int | None = None
    gid: int | None = None
    admin: bool = False
    scope: Scope | None = None
