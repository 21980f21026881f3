"""Whose process is it? Read from /proc; nothing here signals anybody."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

_MAX_DEPTH = 200


def parent_and_session(pid: int) -> tuple[int, int] | None:
    """(parent pid, session id) of a living process; None when it is gone or hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name is in parentheses and may itself contain blanks and parentheses.
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in {"Z", "X"}:
        return None
    return int(fields[1]), int(fields[3])


def belongs_to(pid: int, supervisors: Container[int], sessions: Container[int]) -> bool:
    """Whether `pid` lives in one of these sessions or descends from one of these supervisors."""
    current = pid
    for _ in range(_MAX_DEPTH):
        if current in supervisors:
            return True
        facts = parent_and_session(current)
        if facts is None:
            return False
        current, session = facts
        if session in sessions:
            return True
        if current <= 1:
            return False
    return False


def exists(pid: int) -> bool:
    return parent_and_session(pid) is not None
