"""Sweeps: an array of jobs over every combination of some values, each of which has a name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

from gpuq.errors import UsageError

MAX_ELEMENTS = 100_000
# Before the name of a value, in the environment of a job.
VARIABLE = "GPUQ_PARAM_"

# A value of each name, in the order of the sweep.
Parameters = tuple[tuple[str, str], ...]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_RANGE = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})", re.ASCII)
_LONGEST = 1000
_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_HINT = "write NAME=1e-3,1e-4 or NAME=0..4 (both ends)"


def parse_values(name: str, given: object) -> list[str]:
    """From `1e-3,1e-4`, `0..4`, or a list of texts and numbers. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"sweep: {name[:100]!r} is no name of a value", hint="a name has letters, digits and _")
    if isinstance(given, str):
        values = _unfolded(name, given)
    elif isinstance(given, Sequence) and given:
        values = [_text(name, value) for value in given]
    else:
        raise UsageError(f"sweep: {name} has no values", hint=_HINT)
    for value in values:
        if len(value) > _LONGEST or not all(sign.isprintable() for sign in value):
            raise UsageError(f"sweep: a value of {name} is no line of at most {_LONGEST} characters", hint=_HINT)
    if len(set(values)) != len(values):
        raise UsageError(f"sweep: a value of {name} appears twice", hint="name each value once")
    return values


def _unfolded(name: str, text: str) -> list[str]:
    values: list[str] = []
    for part in text.split(","):
        if not part:
            raise UsageError(f"sweep: {name} has an empty value", hint=_HINT)
        match = _RANGE.fullmatch(part)
        if match is None:
            values.append(part)
            continue
        low, high = int(match[1]), int(match[2])
        if high < low:
            raise UsageError(f"sweep: {name}={part} goes down; write the smaller end first", hint=_HINT)
        if high - low >= MAX_ELEMENTS:
            raise UsageError(f"sweep: {name}={part} has more than {MAX_ELEMENTS} values", hint=_HINT)
        values.extend(map(str, range(low, high + 1)))
    return values


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"sweep: a value of {name} is neither text nor a number", hint=_HINT)
    return str(value)


def size(sweep: Mapping[str, Sequence[str]]) -> int:
    """How many combinations there are."""
    return math.prod(len(values) for values in sweep.values())


def combinations(sweep: Mapping[str, Sequence[str]]) -> Iterator[Parameters]:
    """The last name changes fastest."""
    for values in islice(product(*sweep.values()), MAX_ELEMENTS):
        yield tuple(zip(sweep, values, strict=True))


def fill(text: str, parameters: Parameters) -> str:
    """`{name}` of a value becomes that value; any other stays; `{{` and `}}` become single braces."""
    known = dict(parameters)

    def put(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        return known.get(found[1], found[0])

    return _PLACE.sub(put, text)


def told(parameters: Parameters) -> str:
    """For people: `lr=1e-3, seed=0`."""
    return ", ".join(f"{name}={value}" for name, value in parameters)
