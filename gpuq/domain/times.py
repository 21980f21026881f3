"""Epoch seconds to text and back."""

from __future__ import annotations

from datetime import UTC, datetime

# 9999-12-31T23:59:59Z: what the calendar of the standard library ends with.
LATEST = 253_402_300_799


def iso(at: float | None) -> str | None:
    """Epoch seconds as UTC ISO 8601 with milliseconds and a Z: `2026-11-22T10:00:00.123Z`."""
    if at is None:
        return None
    # Integer milliseconds, because a float just under .1235 would otherwise print a time that was never stored.
    seconds, ms = divmod(round(at * 1000), 1000)
    if not 0 <= seconds <= LATEST:
        # A listing must not fail over one row that was stored with nonsense.
        return None
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def iso_range(span: tuple[float, float] | None) -> list[str | None] | None:
    """From when to when, each as `iso` writes it."""
    return None if span is None else [iso(span[0]), iso(span[1])]
