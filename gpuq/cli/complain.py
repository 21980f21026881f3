"""How an error reaches a person at a terminal, and what the command then ends with."""

from __future__ import annotations

import sys

from gpuq.errors import GpuqError


def tell(error: GpuqError) -> int:
    """Message and hint on stderr, a line each; returns the exit code."""
    print(f"gpuq: {' '.join(error.message.split())}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code
