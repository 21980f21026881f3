"""What a supervisor states of its attempt, that its job runs and how it ended: believed within bounds.

Where the daemon is an ordinary user's, a job of that user can write into its own records. So a number counts only where
the kernel could have given it, and a text only as long as people can read.
"""

from __future__ import annotations

import re
import signal
from typing import Any

from gpuq.domain.job import Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.supervise import bundle

# pid_t is an int.
_MOST_PID = 2**31 - 1
_MOST_EXIT_CODE = 255
_MOST_SIGNAL = signal.NSIG - 1
# The year 2200.
_LAST_TIME = 7_258_118_400.0
_LONGEST_ERROR = 4096
_LONGEST_SHORT_RESULT = 1024
_NAME = r"[A-Za-z0-9][\w.+-]{0,63}"
_MEDIA_TYPE = re.compile(rf"{_NAME}/{_NAME}(; ?[\w.-]{{1,32}}=[\w.:+-]{{1,32}})*", re.ASCII)


def launched(record: dict[str, object]) -> Launched | None:
    """Of `started.json` or a report; None unless it is whole."""
    supervisor_pid, pid = (_whole(record, key, 1, _MOST_PID) for key in ("supervisor_pid", "pid"))
    supervisor_start, pid_start = (_whole(record, key, 0, 2**63 - 1) for key in ("supervisor_start", "pid_start"))
    started_at = _time(record, "started_at")
    if supervisor_pid is None or pid is None or supervisor_start is None or pid_start is None or started_at is None:
        return None
    return Launched(supervisor_pid, supervisor_start, pid, pid_start, started_at)


def result(record: dict[str, object]) -> Result:
    """Of `exit.json`, or of an end that was told. Times that cannot be are left out: they decide nothing. Raises
    BadRecord for an exit code or a signal that cannot be."""
    name = bundle.text(record, "outcome")
    error = bundle.text(record, "error")
    try:
        outcome = Outcome(name or "")
    except ValueError:
        # Written by a newer release, or by nobody's supervisor.
        outcome = Outcome.LOST
        error = f"the exit record names an unknown outcome {(name or '')[:80]!r}"
    return Result(
        outcome=outcome,
        exit_code=_decisive(record, "exit_code", 0, _MOST_EXIT_CODE),
        signal=_decisive(record, "signal", 1, _MOST_SIGNAL),
        error=None if error is None else _storable(error),
        started_at=_time(record, "started_at"),
        finished_at=_time(record, "finished_at"),
        swept=record.get("swept") is not False,
        machine_fault=record.get("machine_fault") is True,
        **_results(record),
    )


def _results(record: dict[str, object]) -> dict[str, Any]:
    """What it says of results; one that is not whole is none. A media type goes into a header, so it has to be one."""
    size, media_type = _whole(record, "result_bytes", 0, 2**63 - 1), bundle.text(record, "result_type")
    short, error = bundle.text(record, "short_result"), bundle.text(record, "result_error")
    typed = size is not None and media_type is not None and _MEDIA_TYPE.fullmatch(media_type)
    return {
        "result_bytes": size,
        "result_type": media_type if typed else None,
        "short_result": None if short is None else _storable(short)[:_LONGEST_SHORT_RESULT],
        "result_error": None if error is None else _storable(error),
    }


def _storable(text: str) -> str:
    """What every database takes: some refuse a NUL, and all of them half of a pair of surrogates."""
    return text[:_LONGEST_ERROR].encode("utf-8", "replace").decode().replace("\0", " ")


def _decisive(record: dict[str, object], key: str, least: int, most: int) -> int | None:
    value = _whole(record, key, least, most)
    if value is None and record.get(key) is not None:
        raise bundle.BadRecord(f"its {key} is none that a process can have")
    return value


def _whole(record: dict[str, object], key: str, least: int, most: int) -> int | None:
    value = bundle.integer(record, key)
    return value if value is not None and least <= value <= most else None


def _time(record: dict[str, object], key: str) -> float | None:
    value = bundle.number(record, key)
    return float(value) if value is not None and 0 <= value <= _LAST_TIME else None
