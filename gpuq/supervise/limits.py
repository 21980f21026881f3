"""New limits of an attempt that runs: its time limit, and its grace. Durable first, then a nudge, as a stop is told.

`limits.json` takes the place of what the spec says of them, for good: a supervisor that is only now started goes by it
too. Whoever launches an attempt for a supervisor that knows the file says so in the spec (HEARS); to one of an earlier
release it would say nothing, so it is not written for that one.
"""

from __future__ import annotations

import contextlib
import time

from gpuq import user_files
from gpuq.supervise import bundle, stop
from gpuq.supervise.spawn import AttemptSpec

# In the spec: the supervisor goes by `limits.json`.
HEARS = "hears_limits"


class Limits:
    """Both in seconds. `time_limit_s`, from the start, None: there is none. `kill_grace_s` None: as it was."""

    __slots__ = ("kill_grace_s", "time_limit_s")

    def __init__(self, time_limit_s: float | None, kill_grace_s: float | None) -> None:
        self.time_limit_s = time_limit_s
        self.kill_grace_s = kill_grace_s


def tell(run_dir: str, token: str, limits: Limits) -> None:
    """Returns when the limits would survive a power cut. An attempt that is not launched yet will go by them. Where the
    disk is full the FIFO alone tells a running supervisor. Raises OSError when neither can be done."""
    record: dict[str, object] = {
        "schema": bundle.SCHEMA,
        "token": token,
        "time_limit_s": limits.time_limit_s,
        "kill_grace_s": limits.kill_grace_s,
        "at": round(time.time(), 3),
    }
    records = bundle.records_of(run_dir)
    try:
        user_files.make_private(records)
        bundle.write(records, bundle.LIMITS, record)
    except OSError:
        # What stands before it in the FIFO may lack its end.
        if not stop.say(records, b"\n" + bundle.line({**record, "limits": True})):
            raise
        return
    stop.nudge(records)


def known(run_dir: str, token: str) -> tuple[Limits, bool] | None:
    """What the supervisor of an attempt goes by, and whether it would hear of other limits; None for an attempt without
    records (yet). Raises OSError when it cannot be known."""
    records = bundle.records_of(run_dir)
    record = bundle.read(records, bundle.SPEC)
    if record is None or record.get("token") != token:
        return None
    found = Limits(bundle.number(record, "time_limit_s"), bundle.number(record, "kill_grace_s"))
    told = _told(records, token)
    if told is not None:
        grace_s = found.kill_grace_s if told.kill_grace_s is None else told.kill_grace_s
        found = Limits(told.time_limit_s, grace_s)
    return found, record.get(HEARS) is True


def read(records: str, token: str) -> Limits | None:
    """For the supervisor. None also when the disk does not answer: a job must not die of that, and whoever told it will
    tell it again."""
    with contextlib.suppress(OSError):
        return _told(records, token)
    return None


def of_line(line: bytes, token: str) -> Limits | None:
    """What a line in the control FIFO says, if it names the attempt's `token`: see `stop_orders.of_line`."""
    record = bundle.parsed(line) if b'"limits"' in line else None
    return None if record is None or record.get("limits") is not True else _of_record(record, token)


def apply(limits: Limits | None, spec: AttemptSpec) -> None:
    """They take the place of those in the spec."""
    if limits is not None:
        spec.time_limit_s = limits.time_limit_s
        spec.kill_grace_s = spec.kill_grace_s if limits.kill_grace_s is None else limits.kill_grace_s


def _told(records: str, token: str) -> Limits | None:
    record = bundle.read(records, bundle.LIMITS)
    return None if record is None else _of_record(record, token)


def _of_record(record: dict[str, object], token: str) -> Limits | None:
    if not token or record.get("token") != token or "time_limit_s" not in record:
        return None
    time_limit_s, kill_grace_s = bundle.number(record, "time_limit_s"), bundle.number(record, "kill_grace_s")
    if time_limit_s is None and record["time_limit_s"] is not None:
        return None
    if (time_limit_s is not None and time_limit_s <= 0) or (kill_grace_s is not None and kill_grace_s < 0):
        return None
    return Limits(time_limit_s, kill_grace_s)
