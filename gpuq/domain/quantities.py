"""Durations and memory sizes as people write them. Standard library only: the client imports this."""

from __future__ import annotations

import re
from math import inf

from gpuq.errors import UsageError

# The longest --time: ten years.
MAX_TIME_LIMIT_S = 10 * 365 * 86400
DURATION_HINT = "write 90s, 15m, 2h, 1d or 1-12:00:00"

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
    match = _MEMORY.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"bad memory size {text!r}", hint="write 18000 (MiB) or 18G")
    mib = float(match[1]) * _MIB[(match[2] or "M").upper()]
    if mib < 1:
        raise UsageError(f"bad memory size {text!r}: less than 1 MiB", hint="write 18000 (MiB) or 18G")
    if mib == inf:
        raise UsageError(f"bad memory size {text!r}: too large a number", hint="write 18000 (MiB) or 18G")
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
