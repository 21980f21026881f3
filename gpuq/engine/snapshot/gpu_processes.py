"""Whose process is it? Read from /proc; nothing here signals anybody."""

from __future__ import annotations

from collections.abc import Container

from gpuq.linux import look, pid_taken

_MAX_DEPTH = 200


def belongs_to(pid: int, supervisors: Container[int], sessions: Container[int]) -> bool:
    """Whether `pid` lives in one of these sessions or descends from one of these supervisors."""
    current = pid
    for _ in range(_MAX_DEPTH):
        if current in supervisors:
            return True
        process = look(current)
        if process is None or not process.living:
            return False
        if process.session in sessions:
            return True
        current = process.parent
        if current <= 1:
            return False
    return False


def exists(pid: int) -> bool:
    """False only for a process that is proved to be gone: one that /proc hides from this user still holds its GPU."""
    process = look(pid)
    return pid_taken(pid) if process is None else process.living
