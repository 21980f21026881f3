"""Durations and memory sizes as people write them. Standard library only: the client imports this."""

from __future__ import annotations

import re

from gpuq.errors import UsageError

# The longest --time: ten years.
MAX_TIME_LIMIT_S = 10 * 365 * 86400
DURATION_HINT = "write 90s, 15m, 2h, 1d or 1-12:00:00"

# More than anything stands for; beyond it numbers do not fit a float, and Python refuses to read their digits.
_LONGEST = 40
_MAX_MEMORY_MIB = 2**50

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])i?B?)?", re.IGNORECASE | re.ASCII)
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}


def parse_duration(text: str) -> float:
    """Seconds from `90s`, `15m`, `1h30m`, `2h`, `1d`, `1-12:00:00`, `12:00:00`, `30:00` (minutes and
    seconds) or a bare number of seconds. Raises UsageError."""
    cleaned = text.strip().lower()
    hint = DURATION_HINT
    if len(cleaned) > _LONGEST:
        raise UsageError(f"bad duration {text[:_LONGEST]!r}…: it is too long", hint=hint)
    if cleaned.replace(".", "", 1).isdigit() and cleaned.isascii():
        return float(cleaned)
    if match := _CLOCK.fullmatch(cleaned):
        days, first, second, third = match.groups()
        if third is None and days is None:
            hours, minutes, seconds = 0, int(first), int(second)
        else:
            hours, minutes, seconds = int(first), int(second), int(third or 0)
        if (minutes > 59 and third is not None) or seconds > 59:
            raise UsageError(f"bad duration {text!r}: minutes and seconds stop at 59", hint=hint)
        return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    parts = _PARTS.findall(cleaned)
    if not parts or "".join(number + unit for number, unit in parts) != cleaned:
        raise UsageError(f"bad duration {text!r}", hint=hint)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def parse_memory_mb(text: str) -> int:
    """MiB from `18000` (MiB), `18G`, `500M`. Raises UsageError."""
    match = _MEMORY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise UsageError(f"bad memory size {text[:_LONGEST]!r}", hint="write 18000 (MiB) or 18G")
    mib = float(match[1]) * _MIB[(match[2] or "M").upper()]
    if mib < 1:
        raise UsageError(f"bad memory size {text!r}: less than 1 MiB", hint="write 18000 (MiB) or 18G")
    if mib > _MAX_MEMORY_MIB:
        raise UsageError(f"bad memory size {text!r}: no machine has so much", hint="write 18000 (MiB) or 18G")
    return round(mib)


def duration_text(seconds: float) -> str:
    """A short form for people: `42s`, `3m10s`, `2h05m`, `1d04h`."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    if total < 86400:
        return f"{total // 3600}h{total % 3600 // 60:02d}m"
    return f"{total // 86400}d{total % 86400 // 3600:02d}h"


def plain_duration(seconds: float) -> str:
    """As one would write it: `7d`, `24h`, `90m`; what is no whole number of a unit as `duration_text` has it."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return duration_text(seconds)
