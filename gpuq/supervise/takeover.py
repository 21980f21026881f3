"""The record that an attempt was taken over from its supervisor: the fence between the two.

It is durable before anything else is done. From then on the supervisor, should it come to life again, signals nobody
and writes no end, and neither does its heir; and what this record says is the end, whatever else stands there. A
supervisor of the previous release does not know it; that one is killed, and its record counts for nothing.
"""

from __future__ import annotations

import signal
import time

from gpuq import user_files
from gpuq.supervise import bundle, classify, limits, results
from gpuq.supervise.spawn import AttemptSpec

# Of a main process that ended so it cannot be told whether the stop did it; nobody else would have.
_OF_A_STOP = (-int(signal.SIGTERM), -int(signal.SIGKILL))


def record(
    records: str,
    token: str,
    *,
    reason: str | None,
    code: int | None,
    ended_by_itself: bool,
    started_at: float | None,
) -> dict[str, object]:
    """As an exit record, of an attempt that ends now. `code`: how the main process ended, as of
    os.waitstatus_to_exitcode; None: not known. `ended_by_itself`: before the stop can have reached it."""
    by_itself = reason is None or (ended_by_itself and code is not None and code not in _OF_A_STOP)
    if by_itself and code is None:
        return classify.record_of("lost", token=token, error="its supervisor did not answer", started_at=started_at)
    spec = _spec(records)
    end = classify.Ending(
        exit_code=code if code is not None and code >= 0 else None,
        signum=-code if code is not None and code < 0 else None,
        stop_reason=None if by_itself else reason,
        time_limit_s=None if spec is None else spec.time_limit_s,
        max_output_bytes=None if spec is None else spec.max_output_bytes,
    )
    left = {} if spec is None else results.left_in(records, spec.uid, spec.max_result_bytes)
    return {**classify.exit_record(end, token=token, started_at=started_at), **left}


def write(records: str, told: dict[str, object], reason: str | None) -> None:
    """Durable when it returns, also where the folder was removed. Raises OSError."""
    user_files.make_private(records)
    taken = {"reason": reason, "taken_over_at": round(time.time(), 3)}
    # Whoever reads it ends what is left of the attempt first.
    bundle.write(records, bundle.TAKEOVER, {**told, "swept": False, **taken})


def _spec(records: str) -> AttemptSpec | None:
    try:
        spec = AttemptSpec(bundle.read(records, bundle.SPEC) or {})
    except (OSError, ValueError):
        return None
    limits.apply(limits.read(records, spec.token), spec)
    return spec
