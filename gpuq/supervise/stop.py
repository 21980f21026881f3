"""Asking a supervisor to stop its job: durable first, then a nudge. Needs no daemon, only the attempt folder."""

from __future__ import annotations

import errno
import os
import time

from gpuq.supervise import bundle


def request_stop(run_dir: str, reason: str, grace_s: float, signal: str | None = None) -> None:
    """Returns when the request would survive a power cut. An attempt that is not launched yet will not run the job.

    `reason`: cancel, preempt, drain, time_limit or shutdown. Asked again with a smaller `grace_s` the end comes
    sooner, 0 is SIGKILL now; asked with a larger one nothing changes. `signal` (`USR1`) is sent before SIGTERM.
    Raises OSError when the request cannot be written.
    """
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    record: dict[str, object] = {"reason": reason, "grace_s": grace_s, "signal": signal, "at": round(time.time(), 3)}
    bundle.write(run_dir, bundle.STOP, record)
    nudge(run_dir)


def nudge(run_dir: str) -> None:
    """Makes the supervisor read `stop.json` now. Without a supervisor there is nobody to wake: it reads the file
    before it starts the job."""
    try:
        fd = os.open(os.path.join(run_dir, bundle.CONTROL), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return
        raise
    try:
        os.write(fd, b"\n")
    except BlockingIOError:
        # Full of nudges: it will be read.
        return
    finally:
        os.close(fd)
