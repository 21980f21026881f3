"""Job arrays: `0-15`, `0-15:2`, `0-15:2%4`, `1,3,7`, from a submission's `array` field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpuq.errors import UsageError

_PART = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?", re.ASCII)
MAX_ELEMENTS = 100_000
# The largest index, and the largest number after %, that both databases hold.
_MOST = 2**31 - 1
_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Array:
    """`limit`: how many elements may run at once; None is no limit."""

    indices: tuple[int, ...]
    limit: int | None


def parse_array(text: str) -> Array:
    """Raises UsageError for anything else, for an empty or repeated index, for a number of more than 31 bits, and
    beyond MAX_ELEMENTS, without counting further."""
    hint = "write 0-15, 0-15:2 (every second), 0-15%4 (four at a time) or 1,3,7"
    body, percent, limit_text = text.strip().partition("%")
    limit = _number(limit_text) if percent else None
    if percent and not limit:
        raise UsageError(f"bad array {text!r}: the number after % is how many may run at once", hint=hint)
    indices: list[int] = []
    for part in body.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"bad array {text!r}", hint=hint)
        low = _number(match[1])
        high = _number(match[2]) if match[2] else low
        step = _number(match[3]) if match[3] else 1
        if low is None or high is None or step is None:
            raise UsageError(f"bad array {text!r}: an index or a step is larger than {_MOST}", hint=hint)
        # Looked at before the next part is unfolded: a short text may name more indices than there is memory for.
        if high < low or step < 1 or (high - low) // step >= MAX_ELEMENTS - len(indices):
            raise UsageError(f"bad array {text!r}: at most {MAX_ELEMENTS} elements, smaller index first", hint=hint)
        indices.extend(range(low, high + 1, step))
    if len(set(indices)) != len(indices):
        raise UsageError(f"bad array {text!r}: an index appears twice", hint=hint)
    return Array(tuple(indices), limit)


def _number(digits: str) -> int | None:
    """None for what is no number, or a larger one than is stored. Python refuses to read a very long one at all."""
    if not (digits.isascii() and digits.isdigit()) or len(digits.lstrip("0")) > _DIGITS:
        return None
    number = int(digits.lstrip("0") or "0")
    return number if number <= _MOST else None
