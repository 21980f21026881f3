"""Tokens, and the ways a person names jobs. Standard library only: the client imports this."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from gpuq.errors import UsageError

_RANGE = re.compile(r"(\d+)-(\d+)", re.ASCII)
_ARRAY = re.compile(r"(\d+)_(\d+)", re.ASCII)
MAX_RANGE = 100_000
_HINT = "write 7, 7,9, 300-440, 7_3, last or all"
# Of two ids with a sign between; Python refuses to read numbers of thousands of digits.
_LONGEST = 41
# What a database can number.
_LARGEST = 2**63 - 1


def new_token() -> str:
    """A fencing token: 128 random bits. Whoever names it acts for exactly one attempt."""
    # What secrets.token_hex does, without the 14 ms that importing it costs a command.
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs as named on a command line: plain ids, id ranges (ends included), array elements
    (array id, index), and the words `last` (the caller's newest job) and `all`."""

    ids: tuple[int, ...] = ()
    ranges: tuple[tuple[int, int], ...] = ()
    elements: tuple[tuple[int, int], ...] = ()
    last: bool = False
    all: bool = False


def parse_selection(words: list[str]) -> Selection:
    """From `7`, `7 9`, `7,9`, `300-440`, `7_3`, `last`, `all`. Raises UsageError."""
    ids: list[int] = []
    ranges: list[tuple[int, int]] = []
    elements: list[tuple[int, int]] = []
    last = everything = False
    for part in (part.strip() for word in words for part in word.split(",")):
        if not part:
            continue
        if len(part) > _LONGEST:
            raise UsageError(f"{part[:_LONGEST]!r}… is not a job id", hint=_HINT)
        if part.isascii() and part.isdigit():
            ids.append(int(part))
        elif match := _RANGE.fullmatch(part):
            low, high = int(match[1]), int(match[2])
            if low > high or high - low >= MAX_RANGE:
                raise UsageError(f"bad range of ids {part!r}", hint="write 300-440, smaller id first")
            ranges.append((low, high))
        elif match := _ARRAY.fullmatch(part):
            elements.append((int(match[1]), int(match[2])))
        elif part == "last":
            last = True
        elif part == "all":
            everything = True
        else:
            raise UsageError(f"{part!r} is not a job id", hint=_HINT)
    if max((*ids, *(high for _, high in ranges), *(one for pair in elements for one in pair)), default=0) > _LARGEST:
        raise UsageError("no job has an id of that many digits", hint="`gpuq status -a` lists every job")
    return Selection(tuple(ids), tuple(ranges), tuple(elements), last, everything)
