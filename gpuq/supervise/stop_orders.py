"""What a supervisor takes for a request to stop its job: a value of known shape, or nothing."""

from __future__ import annotations

from gpuq.supervise import bundle
from gpuq.supervise.classify import OF_REASON
from gpuq.supervise.spawn import signal_number

# One write of so many bytes is never torn, so no request is longer; and more than that of it is never kept.
LONGEST_LINE = 4096


class StopOrder:
    """`grace_s` in seconds, None: the job's own. `signum` is sent before SIGTERM, None: nothing is."""

    __slots__ = ("grace_s", "reason", "signum")

    def __init__(self, reason: str, grace_s: float | None, signum: int | None) -> None:
        self.reason = reason
        self.grace_s = grace_s
        self.signum = signum


def of_record(record: dict[str, object]) -> StopOrder | None:
    """What `stop.json` asks for. A reason of a newer release is one too: whatever it says, the job is to stop."""
    reason = bundle.text(record, "reason")
    grace_s = bundle.number(record, "grace_s")
    if not reason or (grace_s is None and record.get("grace_s") is not None):
        return None
    return StopOrder(reason, grace_s, signal_number(record.get("signal")))


def of_line(line: bytes, token: str) -> StopOrder | None:
    """What a line in the control FIFO asks for; None for a mere nudge, and for anything that is not a request which
    names the attempt's `token`: a job of the daemon's own user may write there, too."""
    record = bundle.parsed(line) if 0 < len(line) <= LONGEST_LINE else None
    if record is None or not token or record.get("token") != token or record.get("reason") not in OF_REASON:
        return None
    order = of_record(record)
    if order is not None and order.signum is None and record.get("signal") is not None:
        return None
    return order
