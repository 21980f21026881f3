"""Times as people write them: `--begin`, `--since`, `--until`."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

from gpuq.domain.quantities import parse_duration
from gpuq.errors import UsageError

# The longest that is a time; the library for natural ones looks at every word.
_LONGEST = 100
_HINT = "write 2h (from now), 18:30, 2026-11-22T10:00 or 'tomorrow 9:00'"
# Years 1 to 9998, so that every time zone has them.
_EARLIEST, _LATEST = -62_135_510_400.0, 253_370_764_800.0

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", re.ASCII)


def parse_time(text: str, *, now: float | None = None, past: bool = False) -> float:
    """Epoch seconds, local time unless the text says otherwise. A delay (`2h`, `now+2h`) counts from now,
    backwards when `past`; `18:30` is the next one, or the last one when `past`. Raises UsageError."""
    now = time.time() if now is None else now
    cleaned = text.strip()
    if len(cleaned) > _LONGEST:
        raise UsageError(f"bad time {cleaned[:_LONGEST]!r}…", hint=_HINT)
    try:
        moment = _moment(cleaned, now, past)
        if not _EARLIEST <= moment <= _LATEST:
            raise OverflowError
    # What the calendar says of years that it does not have, or that another time zone takes out of it.
    except (ValueError, OverflowError):
        raise UsageError(f"bad time {text!r}: it is outside the calendar", hint=_HINT) from None
    return moment


def _moment(cleaned: str, now: float, past: bool) -> float:
    if match := _CLOCK.fullmatch(cleaned):
        return _clock(match, now, past)
    if cleaned.isascii() and cleaned.isdigit() and len(cleaned) >= 9:
        return float(cleaned)
    try:
        delay = parse_duration(cleaned.lower().removeprefix("now").lstrip("+").strip() or "0")
    except UsageError:
        pass
    else:
        return now - delay if past else now + delay
    try:
        found = datetime.fromisoformat(cleaned)
    except ValueError:
        return _natural(cleaned, now, past)
    return found.timestamp()


def _clock(match: re.Match[str], now: float, past: bool) -> float:
    hour, minute, second = (int(part or 0) for part in match.groups())
    if hour > 23 or minute > 59 or second > 59:
        raise UsageError(f"bad time {match[0]!r}", hint="write 18:30")
    today = datetime.fromtimestamp(now)
    moment = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
    # A day by the calendar, not 24 hours: clocks are changed in between.
    if past and moment > today:
        moment -= timedelta(days=1)
    elif not past and moment <= today:
        moment += timedelta(days=1)
    return moment.timestamp()


def _natural(text: str, now: float, past: bool) -> float:
    """`tomorrow 9:00`, `next friday`, `yesterday`."""
    # The library takes half a second to import and looks for a time in nearly anything.
    import dateparser

    found = dateparser.parse(
        text,
        languages=["en"],
        settings={
            "PREFER_DATES_FROM": "past" if past else "future",
            "RELATIVE_BASE": datetime.fromtimestamp(now),
        },
    )
    if found is None:
        raise UsageError(f"bad time {text!r}", hint=_HINT)
    return float(found.timestamp())
