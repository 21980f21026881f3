"""What the elements of an array have of their own: index, values of a sweep, name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

from gpuq.domain import sweep as sweeps
from gpuq.domain.array import Array, parse_array
from gpuq.domain.spec import JobSpec
from gpuq.errors import UsageError

# Of a name.
_LONGEST = 200


def array_of(spec: JobSpec) -> Array | None:
    """The indices of the submission; None for a single job. A sweep counts its combinations, unless an array beside it
    names an index for each. Raises UsageError."""
    array = None if spec.array is None else parse_array(spec.array)
    if spec.sweep is None:
        return array
    count = sweeps.size(spec.sweep)
    if array is None:
        return Array(tuple(range(count)), None)
    if len(array.indices) != count:
        raise UsageError(
            f"array: it has {len(array.indices)} indices, and the sweep {count} combinations",
            hint="leave --array out, or name as many: --array 0-9%2 lets two of ten run at a time",
        )
    return array


def parameters_of(spec: JobSpec) -> Iterable[sweeps.Parameters | None]:
    """For each element; without end where there is no sweep."""
    return repeat(None) if spec.sweep is None else sweeps.combinations(spec.sweep)


def name_of(spec: JobSpec, name: str, index: int, parameters: sweeps.Parameters | None) -> str:
    """With the index and the values that it names; one that nobody gave tells the values at its end. Raises UsageError
    for one that becomes too long."""
    named = name.replace("{index}", str(index))
    if parameters is None:
        return named
    if spec.name is None:
        return f"{named} {sweeps.told(parameters)}"[:_LONGEST]
    filled = sweeps.fill(named, parameters)
    if not 0 < len(filled) <= _LONGEST:
        raise UsageError(f"name: with the values of the sweep it has {len(filled)} characters, at most {_LONGEST}")
    return filled
