"""Passing a stop on to an attempt's supervisor: the only caller of `launcher.request_stop`."""

from __future__ import annotations

import logging

from gpuq.engine.context import StopContext
from gpuq.ports.notify import Topic

log = logging.getLogger(__name__)


def try_stop(
    ctx: StopContext, job_id: int, run_dir: str, *, reason: str, grace_s: float, signal: str | None = None
) -> bool:
    """Whether the request is where a supervisor hears of it. The arguments are those of `Launcher.request_stop`.

    False, and a line in the log, when it cannot be written and nobody is there to be told: an attempt whose folder is
    out of order must not keep its caller from all the others. What SQL says of the stop still holds, and the reaper
    asks for it again when its time is over.
    """
    try:
        ctx.launcher.request_stop(run_dir, reason=reason, grace_s=grace_s, signal=signal)
    except OSError as error:
        log.warning("job %d: the stop is not in the attempt's folder: %s", job_id, error)
        return False
    finally:
        # Whoever looks after the supervisor does so all the more when it cannot be told.
        ctx.notifier.publish(Topic.STOPS)
    return True
