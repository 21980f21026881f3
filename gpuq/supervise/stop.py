"""Asking a supervisor to stop its job: durable first, then a nudge. Needs no daemon, only the attempt folder."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from gpuq import user_files
from gpuq.supervise import bundle

CANCEL = "cancel"


def request_stop(run_dir: str, reason: str, grace_s: float, signal: str | None = None) -> None:
    """Returns when the request would survive a power cut. An attempt that is not launched yet will not run the job.

    `reason`: cancel, preempt, drain, time_limit or shutdown. Asked again with a smaller `grace_s` the end comes
    sooner, 0 is SIGKILL now; asked with a larger one nothing changes. `signal` (`USR1`) is sent before SIGTERM.
    A disk that is full does not keep a running job from being stopped: the FIFO alone reaches the supervisor. Raises
    OSError when the request cannot be written and no supervisor reads the FIFO.
    """
    record: dict[str, object] = {"reason": reason, "grace_s": grace_s, "signal": signal, "at": round(time.time(), 3)}
    records = bundle.records_of(run_dir)
    try:
        if not user_files.make_private(records) and reason != CANCEL and is_cancelled(records):
            # It was answered, and SQL may not know of it: only this keeps the job from being started again.
            record["reason"] = CANCEL
        bundle.write(records, bundle.STOP, record)
    except OSError:
        # The supervisor believes only who knows the attempt's token. What stands before it may lack its end.
        token = bundle.token_in(records)
        line = b"\n" + bundle.line({**record, "token": token})
        if not token or not say(records, line):
            raise
        return
    nudge(records)


def is_cancelled(records: str) -> bool:
    """Whether the request that stands there is a cancel."""
    with contextlib.suppress(OSError):
        return (bundle.read(records, bundle.STOP) or {}).get("reason") == CANCEL
    return False


def nudge(records: str) -> None:
    """Makes the supervisor read `stop.json` now. Without a supervisor there is nobody to wake: it reads the file
    before it starts the job."""
    say(records, b"\n")


def say(records: str, line: bytes) -> bool:
    """Writes into the control FIFO; whether a supervisor will read it."""
    try:
        fd = os.open(os.path.join(records, bundle.CONTROL), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENOTDIR):
            return False
        raise
    try:
        os.write(fd, line)
    except BlockingIOError:
        # Full of nudges: stop.json will be read, which is no use to a request that is not in it.
        return line == b"\n"
    finally:
        os.close(fd)
    return True
