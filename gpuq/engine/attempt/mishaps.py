"""What goes wrong with one attempt is that attempt's: the others are looked after all the same."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context
from gpuq.errors import GpuqError

log = logging.getLogger(__name__)

# What failed is tried again after so long.
AGAIN_S = 5.0


@contextlib.contextmanager
def alone(ctx: Context, tracked: TrackedAttempt) -> Iterator[None]:
    """An exception in it is noted on the attempt, whose GPUs stay held, and told; what it was is in the log once. A
    store that is away is everybody's trouble, and goes on (GpuqError)."""
    try:
        yield
    except GpuqError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not the others'
        note(ctx, tracked, error)


def note(ctx: Context, tracked: TrackedAttempt, error: Exception) -> None:
    """That looking after this attempt has failed, for now."""
    doubt = f"looking after it fails: {type(error).__name__}: {error}"
    if doubt != tracked.doubt:
        log.error("job %d attempt %d: %s", tracked.job.id, tracked.number, doubt, exc_info=error)
    tracked.doubt = doubt
    tracked.ask_at = ctx.clock.monotonic() + AGAIN_S
