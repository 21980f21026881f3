"""What kind of end it was: the exit record, and what the log tells of a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gpuq.domain.oom import GPU_OOM_ERROR, gpu_oom
from gpuq.domain.outcome import Outcome, Result
from gpuq.engine.attempt.logs import open_log
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.context import Context

TAIL_BYTES = 16_384
TAIL_LINES = 20
# The report of a GPU that is out of memory stands before what the program prints of its own end.
SEARCHED_LINES = 200

# An attempt that is over, and its result as it is to be written.
End = tuple[TrackedAttempt, Result]


def classified(ctx: Context, ended: Sequence[TrackedAttempt]) -> list[End]:
    """With what the logs tell of the failures. Reads files, so it comes before the transaction."""
    now = ctx.clock.now()
    for tracked in ended:
        if tracked.result is not None and tracked.result.outcome not in {Outcome.SUCCEEDED, Outcome.CANCELLED}:
            tracked.cancelled = ctx.launcher.told_to_cancel(tracked.run_dir)
    return [(tracked, _classified(tracked, now)) for tracked in ended]


def _classified(tracked: TrackedAttempt, now: float) -> Result:
    """Recognises GPU out-of-memory in the log, and keeps the log's end with every failure."""
    result = tracked.result_with_usage()
    if result.finished_at is None:
        result = replace(result, finished_at=now)
    if result.outcome in {Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.PREEMPTED}:
        return result
    tail = log_tail(tracked.log_path, tracked.job.uid, lines=SEARCHED_LINES)
    kept = replace(result, log_tail="\n".join(tail.splitlines()[-TAIL_LINES:]))
    if tracked.gpu_uuids and result.outcome in {Outcome.EXIT_NONZERO, Outcome.SIGNAL}:
        line = gpu_oom(tail, result.exit_code)
        if line is not None:
            # The error is for everybody; what the program printed of it is kept with its output.
            lines = kept.log_tail or ""
            told = lines if line in lines else f"{line}\n{lines}"
            return replace(kept, outcome=Outcome.GPU_OOM, error=GPU_OOM_ERROR, log_tail=told)
    return kept


def log_tail(path: str, uid: int | None, lines: int = TAIL_LINES) -> str:
    """The last lines of a log of user `uid`'s, at most TAIL_BYTES; empty when there is none."""
    try:
        with open_log(path, uid) as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - TAIL_BYTES))
            text = stream.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.replace("\0", "").splitlines()[-lines:])
