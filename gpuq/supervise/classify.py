"""How the attempt ended, in the words of the exit record. Pure, apart from counting the kernel's OOM kills.

The outcomes are plain strings here: the enum of them would cost every supervisor the import of dataclasses.
"""

from __future__ import annotations

import os
import signal
import time

from gpuq.supervise import bundle, output_limit

_COUNTER_BYTES = 32 * 1024
# What a stop makes of the attempt, by its reason, whatever the program's exit code.
OF_REASON = {
    "cancel": "cancelled",
    "preempt": "preempted",
    "drain": "preempted",
    "time_limit": "time_limit",
    "shutdown": "lost",
    output_limit.REASON: "output_limit",
}
# How a shell ends, and what else follows its custom, whose program was ended by SIGKILL.
KILLED_CHILD = 128 + int(signal.SIGKILL)
OOM_SENTENCE = "ended by SIGKILL while the kernel's out-of-memory killer was at work"
SHUT_DOWN = "the machine was shut down, or the supervisor was told to stop"


class Ending:
    """The main process's end. Exactly one of `exit_code` and `signum` is set.

    `stop_reason`: the stop whose signals reached it, None when it ended by itself. `noticed`: the `--signal` that was
    sent ahead of the time limit. `oom_kills`: how many the kernel counted during the run.
    """

    __slots__ = ("exit_code", "max_output_bytes", "noticed", "oom_kills", "signum", "stop_reason", "time_limit_s")

    def __init__(
        self,
        *,
        exit_code: int | None = None,
        signum: int | None = None,
        stop_reason: str | None = None,
        noticed: int | None = None,
        oom_kills: int = 0,
        time_limit_s: float | None = None,
        max_output_bytes: int | None = None,
    ) -> None:
        self.exit_code = exit_code
        self.signum = signum
        self.stop_reason = stop_reason
        self.noticed = noticed
        self.oom_kills = oom_kills
        self.time_limit_s = time_limit_s
        self.max_output_bytes = max_output_bytes


def classify_end(end: Ending) -> tuple[str, str | None]:
    """Outcome and the sentence that goes with it (None for a success)."""
    if end.stop_reason is not None:
        return of_reason(end.stop_reason, end.time_limit_s, end.max_output_bytes)
    if end.exit_code == 0:
        return "succeeded", None
    if end.exit_code == KILLED_CHILD and end.oom_kills > 0:
        return "host_oom", f"ended with exit code {KILLED_CHILD}: a process of it was {OOM_SENTENCE}"
    if end.signum is None:
        return "exit_nonzero", f"ended with exit code {end.exit_code}"
    if end.signum == end.noticed:
        return "time_limit", f"ended by {signal_name(end.signum)}, which was sent ahead of its time limit"
    if end.signum == signal.SIGKILL and end.oom_kills > 0:
        return "host_oom", OOM_SENTENCE
    return "signal", f"ended by {signal_name(end.signum)}"


def exit_record(end: Ending, *, token: str, started_at: float | None) -> dict[str, object]:
    """`exit.json` of an attempt whose program ran, as of now."""
    outcome, error = classify_end(end)
    return record_of(
        outcome,
        token=token,
        error=error,
        exit_code=end.exit_code,
        signum=end.signum,
        started_at=started_at,
        stop_reason=end.stop_reason,
    )


def record_of(
    outcome: str,
    *,
    token: str = "",
    error: str | None = None,
    exit_code: int | None = None,
    signum: int | None = None,
    started_at: float | None = None,
    stop_reason: str | None = None,
) -> dict[str, object]:
    """The exit record (`exit.json`) of an attempt that ends now. Times in epoch seconds."""
    return {
        "schema": bundle.SCHEMA,
        "token": token,
        "outcome": outcome,
        "exit_code": exit_code,
        "signal": signum,
        "error": error,
        "started_at": started_at,
        "finished_at": round(time.time(), 3),
        "stop_reason": stop_reason,
    }


def of_reason(reason: str, time_limit_s: float | None = None, max_output_bytes: int | None = None) -> tuple[str, str]:
    """Outcome and error text of an attempt that was stopped for this reason."""
    outcome = OF_REASON.get(reason, "cancelled")
    if outcome == "lost":
        return outcome, SHUT_DOWN
    if outcome == "time_limit":
        limit = "" if time_limit_s is None else f" of {time_limit_s:g} s"
        return outcome, f"ran into its time limit{limit}"
    if reason == output_limit.REASON and max_output_bytes is not None:
        return outcome, output_limit.told(max_output_bytes)
    return outcome, f"stopped: {reason}"


def signal_name(signum: int) -> str:
    """`SIGTERM` and the like; `signal N` for a number without a name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def oom_counter() -> str:
    """The file that counts the kernel's OOM kills: of this process's own control group, which its children share,
    else of the whole machine."""
    try:
        with open("/proc/self/cgroup") as file:
            groups = [line.rstrip("\n")[3:] for line in file if line.startswith("0::")]
    except OSError:
        groups = []
    own = f"/sys/fs/cgroup{groups[0]}/memory.events" if groups else ""
    return own if os.access(own, os.R_OK) else "/proc/vmstat"


def count_oom_kills(path: str) -> int:
    """From the file that `oom_counter` named; 0 when it cannot be read (any more)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        data = os.read(fd, _COUNTER_BYTES)
    except OSError:
        return 0
    finally:
        os.close(fd)
    found = data.find(b"\noom_kill ")
    return int(data[found + 10 :].split(None, 1)[0]) if found >= 0 else 0
