"""How much GPU memory a job that shares GPUs asks for after it ran out of it. Memory in MiB."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

HEADROOM = 1.25


def raised(asked_mb: int, peak_mb: int | None, gpus: int, memories_mb: Sequence[int]) -> int | None:
    """The next request for each of `gpus` GPUs, or None: alone on them.

    1.25 times the observed peak, never less than before. A peak that calls for no more than was asked says nothing of
    what was missing (the memory was wanted in one piece, between two looks): then 1.25 times the request.
    `memories_mb`: of the GPUs that the job may use. Where no `gpus` of them have so much, it asks for as much as they
    have, so that it goes to the largest ones; where all are alike or it has that already, for a GPU of its own.
    """
    wanted = ceil(HEADROOM * (peak_mb or 0))
    if wanted <= asked_mb:
        wanted = ceil(HEADROOM * asked_mb)
    largest_first = sorted(memories_mb, reverse=True)
    most = largest_first[gpus - 1] if 0 < gpus <= len(largest_first) else 0
    if wanted <= most:
        return wanted
    return most if asked_mb < most and most > largest_first[-1] else None
