"""Who has an account on this machine: the one place that asks, and never for longer than a second from memory.

A daemon of root's runs each job as its submitter, so everything there rests on a name and a uid that belong together
now: accounts go away, change their uid, and a uid is given to somebody else. A daemon of an ordinary user runs all
jobs as that user, and asks nothing of anybody's account.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass

# Seconds. A look into /etc/passwd costs microseconds; a directory server costs a round trip, and may be away.
REMEMBERED_S = 1.0
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the machine knows it now. `gid`: its primary group."""

    name: str
    uid: int
    gid: int
    home: str


class Accounts:
    """The machine's accounts as the daemon of `daemon_uid` (this process's user, unless given) sees them. Any thread.

    `monotonic`: a clock in seconds.
    """

    def __init__(self, daemon_uid: int | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.daemon_uid = os.geteuid() if daemon_uid is None else daemon_uid
        self._monotonic = monotonic
        self._known: dict[int | str, tuple[float, Account | None]] = {}

    @property
    def apart(self) -> bool:
        """Whether users are kept apart: each job runs as its submitter."""
        return self.daemon_uid == 0

    def remembers(self, key: int | str) -> bool:
        """Whether the answer for a uid or a name is at hand, so that asking cannot take long."""
        known = self._known.get(key)
        return known is not None and self._monotonic() < known[0]

    def of(self, key: int | str) -> Account | None:
        """The account of a uid or of a name; None when there is none, or when it cannot be looked up now: the machine
        does not tell these two apart."""
        now = self._monotonic()
        known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        found = _look_up(key)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[key] = now + REMEMBERED_S, found
        return found

    def why_not(self, user: str, uid: int | None) -> str | None:
        """Why nothing may be done in the name of `user` with `uid`; None when they are one account now, and always on
        a daemon that does not keep its users apart."""
        if not self.apart:
            return None
        account = self.of(user)
        if account is None:
            return f"{user} has no account on this machine, or it cannot be looked up now"
        if uid is None:
            return f"the uid of {user} was not known"
        if account.uid != uid:
            return f"the account {user} has uid {account.uid} now, and had {uid}"
        return None


def _look_up(key: int | str) -> Account | None:
    try:
        found = pwd.getpwuid(key) if isinstance(key, int) else pwd.getpwnam(key)
    except (KeyError, OSError, OverflowError, ValueError):
        return None
    return Account(found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir)
