"""The variable by which what a dead attempt left behind is found in /proc/PID/environ."""

from __future__ import annotations

# The job and all that it starts carry it, so that a sweep can tell them from everybody else's processes.
MARK = "GPUQ_TOKEN_OF_ATTEMPT"
_LENGTH = 16


def mark_of(token: str) -> str:
    """The value of `MARK` for the attempt with this token. Half of it, so that it gives nobody the token."""
    return token[:_LENGTH]
