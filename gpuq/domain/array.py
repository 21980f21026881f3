"""Job arrays: `0-15`, `0-15:2`, `0-15:2%4`, `1,3,7`, from a submission's `array` field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpuq.errors import UsageError

_PART = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?", re.ASCII)
MAX_ELEMENTS = 100_000


@dataclass(frozen=True, slots=True)
class Array:
    """`limit`: how many elements may run at once; None is no limit."""

    indices: tuple[int, ...]
    limit: int | None


def parse_array(text: str) -> Array:
    """Raises UsageError for anything else, for an empty or repeated index, and beyond MAX_ELEMENTS."""
    hint = "write 0-15, 0-15:2 (every second), 0-15%4 (four at a time) or 1,3,7"
    body, percent, limit_text = text.strip().partition("%")
    if percent and (not limit_text.isdigit() or int(limit_text) < 1):
        raise UsageError(f"bad array {text!r}: the number after % is how many may run at once", hint=hint)
    indices: list[int] = []
    for part in body.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"bad array {text!r}", hint=hint)
        low = int(match[1])
        high = int(match[2]) if match[2] else low
        step = int(match[3]) if match[3] else 1
        if high < low or step < 1 or (high - low) // max(step, 1) >= MAX_ELEMENTS:
            raise UsageError(f"bad array {text!r}: at most {MAX_ELEMENTS} elements, smaller index first", hint=hint)
        indices.extend(range(low, high + 1, step))
    if len(set(indices)) != len(indices) or len(indices) > MAX_ELEMENTS:
        raise UsageError(f"bad array {text!r}: an index appears twice, or there are too many", hint=hint)
    return Array(tuple(indices), int(limit_text) if percent else None)
