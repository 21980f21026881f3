"""Tokens, and the ways a person names jobs. Standard library only: the client imports this."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from gpuq.errors import UsageError

_RANGE = re.compile(r"(\d+)-(\d+)", re.ASCII)
_ARRAY = re.compile(r"(\d+)_(\d+)", re.ASCII)
_SLICE = re.compile(r"(\d+)_\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\]", re.ASCII)
# Commas between names, but not those within brackets.
_COMMA = re.compile(r",(?![^\[\]]*\])")
MAX_RANGE = 100_000
_HINT = "write 7, 7,9, 300-440, 7_3, '7_[1-4]', last or all"
# Of two ids with a sign between, and of what stands in brackets; Python refuses to read numbers of thousands of digits.
_LONGEST = 41
_LONGEST_SLICE = 1000
# What a database can number.
_LARGEST = 2**63 - 1


def new_token() -> str:
    """A fencing token: 128 random bits. Whoever names it acts for exactly one attempt."""
    # What secrets.token_hex does, without the 14 ms that importing it costs a command.
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs as named on a command line: plain ids, id ranges (ends included), array elements
    (array id, index), the words `last` (the caller's newest job) and `all`, and pieces of arrays (array id, first
    index, last index)."""

    ids: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    elements: tuple[tuple[int, int], ...] = ()
    last: bool = False
    all: bool = False
    slices: tuple[tuple[int, int, int], ...] = ()


def parse_selection(words: list[str]) -> Selection:
    """From `7`, `7 9`, `7,9`, `300-440`, `7_3`, `7_[1-4,9]`, `last`, `all`. Raises UsageError."""
    ids: list[int] = []
    ranges: list[tuple[int, int]] = []
    elements: list[tuple[int, int]] = []
    slices: list[tuple[int, int, int]] = []
    last = everything = False
    for part in (part.strip() for word in words for part in _COMMA.split(word)):
        if not part:
            continue
        if len(part) > (_LONGEST_SLICE if part.endswith("]") else _LONGEST):
            raise UsageError(f"{part[:_LONGEST]!r}… is not a job id", hint=_HINT)
        if part.isascii() and part.isdigit():
            ids.append(int(part))
        elif match := _RANGE.fullmatch(part):
            ranges.append(_ends(match[1], match[2], f"bad range of ids {part!r}", "write 300-440, smaller id first"))
        elif match := _ARRAY.fullmatch(part):
            elements.append((int(match[1]), int(match[2])))
        elif match := _SLICE.fullmatch(part):
            slices += _slices(int(match[1]), match[2], part)
        elif part == "last":
            last = True
        elif part == "all":
            everything = True
        else:
            raise UsageError(f"{part!r} is not a job id", hint=_HINT)
    numbers = (*ids, *(high for _, high in ranges), *(one for pair in elements for one in pair))
    if max((*numbers, *(one for array in slices for one in array)), default=0) > _LARGEST:
        raise UsageError("no job has an id of that many digits", hint="`gpuq status -a` lists every job")
    return Selection(tuple(ids), tuple(ranges), tuple(elements), last, everything, tuple(slices))


def _slices(array_id: int, text: str, part: str) -> list[tuple[int, int, int]]:
    found = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        found.append(
            (array_id, *_ends(low, high or low, f"bad indices {part!r}", "write 7_[1-4], smaller index first"))
        )
    return found


def _ends(low: str, high: str, wrong: str, hint: str) -> tuple[int, int]:
    first, last = int(low), int(high)
    if first > last or last - first >= MAX_RANGE:
        raise UsageError(wrong, hint=hint)
    return first, last
