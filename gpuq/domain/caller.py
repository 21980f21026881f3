"""Who asks: taken from the kernel (Unix socket peer) or from a token, never from a request body."""

from __future__ import annotations

from dataclasses import dataclass

# Who did it in the history, where nobody asked for it.
ACTOR = "gpuq"


@dataclass(frozen=True, slots=True)
class Caller:
    """`uid` and `gid` are None for a token's user who has no account on this machine."""

    user: str
    uid: int | None = None
    gid: int | None = None
    admin: bool = False

    def may_act_on(self, owner: str) -> bool:
        return self.admin or self.user == owner
