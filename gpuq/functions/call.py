"""`python -m gpuq.functions.call FILE`: what the job of a function runs.

Runs the call in FILE as the job's own user, and leaves what it returns or raises as the job's result. An exception is
also printed, so that `gpuq logs` has it, and ends the job with exit code 1; `sys.exit(3)` in a function ends it with 3.
"""

from __future__ import annotations

import sys
import traceback

from gpuq.errors import GpuqError
from gpuq.functions import payload
from gpuq.in_job import result
from gpuq.python_values import VALUE, header_of, pack, pack_error, unpack

# As gpuq.domain.results.PYTHON_TYPE has it; nothing of the daemon's is imported in a job.
PYTHON_TYPE = "application/vnd.gpuq.python"


def main(words: list[str]) -> int:
    """The exit code."""
    if len(words) != 1:
        sys.stderr.write("usage: python -m gpuq.functions.call FILE\n(gpuq.Executor submits this)\n")
        return 2
    try:
        data = payload.read(words[0])
        path = header_of(data).get("path")
        if isinstance(path, list):
            # Modules are found where the submitter found them; what this interpreter has of its own stays behind.
            sys.path[:] = [*path, *(each for each in sys.path if each not in path)]
        function, args, kwargs = unpack(data)
    except GpuqError as error:
        sys.stderr.write(f"gpuq: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        result(pack_error(error), PYTHON_TYPE)
        return 1
    try:
        value = function(*args, **kwargs)
        answer = pack(VALUE, value)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
        traceback.print_exc()
        result(pack_error(error), PYTHON_TYPE)
        return 1
    result(answer, PYTHON_TYPE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
