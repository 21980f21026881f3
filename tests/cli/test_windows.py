"""What every command prints in a window: no line is wider than it, what matters is seen, and all times are the
reader's, in one style; in JSON they are ISO 8601 in UTC."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, job

from gpuq.cli.__main__ import main
from gpuq.cli.parse.command_table import COMMANDS
from gpuq.cli.render import cells_of
from gpuq.client.calls import Calls

AT = "2026-11-22T10:00:00.000Z"
RANGE = ["2026-11-22T10:00:00.000Z", "2026-11-22T10:00:00.000Z"]
# In Kathmandu, 5:45 ahead of UTC, whose minutes no other zone's clocks show.
SHORT, FULL = "2026-11-22 15:45", "2026-11-22 15:45:00"
TEXT = "needs 4 GPUs, 2 free; gpu 1 held by job 17 until about 2026-11-22 10:00 UTC; 実験 first in line " + "more " * 40
REASON = {"code": "Resources", "text": TEXT}
LONG = "llama-finetune-実験-rank-64-" + "sweep" * 60


class Tty(io.StringIO):
    """What a command writes to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def window(gpuq: Gpuq, daemon: StubDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Runs a command in a window of so many columns (0: through a pipe); the lines that it printed."""
    for name in ("GPUQ_HOME", "GPUQ_CONFIG", "HOME"):
        monkeypatch.setenv(name, gpuq.env[name])
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("LINES", "24")
    time.tzset()
    answer(daemon, 5)
    clients: list[Calls] = []

    class Closed(Calls):
        def __init__(self, **how: Any) -> None:
            super().__init__(**how)
            clients.append(self)

    monkeypatch.setattr("gpuq.cli.connect.Calls", Closed)

    def show(columns: int, *words: str) -> list[str]:
        out = Tty() if columns else io.StringIO()
        err = io.StringIO()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        code = main(words)
        clients.pop().close()
        assert code == 0, err.getvalue()
        return out.getvalue().splitlines()

    yield show
    monkeypatch.undo()
    time.tzset()


def full(number: int, **changes: Any) -> dict[str, Any]:
    """A waiting job with everything that has a time."""
    told = {
        "name": LONG, "user": "bartholomew", "group": "g" * 20, "command": ["python", LONG], "reason": REASON,
        "position": number, "submitted_at": AT, "estimated_start": AT, "estimated_start_range": RANGE,
        "estimated_end": AT, "estimated_end_range": RANGE, "eligible_at": AT,
    }  # fmt: skip
    return job(number, **{**told, **changes})


def running(number: int) -> dict[str, Any]:
    return full(number, state="running", started_at=AT, gpu_indices=[0, 1, 2, 3], gpu_uuids=["GPU-" + "a" * 36] * 4)


def ended(number: int) -> dict[str, Any]:
    how = {"state": "failed", "outcome": "launch_error", "error": f"no folder since {AT}, {LONG}", "attempt": 3}
    return full(number, **how, started_at=AT, finished_at=AT, estimated_start=None, estimated_end=None, reason=None)


def answer(daemon: StubDaemon, count: int) -> None:
    """The daemon answers with `count` rows wherever there may be many."""
    queue = [running(1), *(full(number) for number in range(2, count + 1))]
    daemon.on("GET", "/queue", Answer(200, {"running": 1, "waiting": count - 1, "total": count, "jobs": queue}))
    daemon.on("GET", "/jobs", lambda asked: Answer(200, [ended(7)]))
    attempt = {
        "number": 1, "outcome": "launch_error", "exit_code": None, "signal": None, "node": "box1", "gpu_indices": [0],
        "gpu_uuids": [], "pid": 1, "started_at": AT, "finished_at": AT, "peak_gpu_mem_mb": 5, "error": f"{AT} {LONG}",
    }  # fmt: skip
    event = {
        "at": AT, "job_id": 7, "attempt": 1, "from_state": "queued", "to_state": "delayed", "actor": "gpuq",
        "detail": f"again at {AT}",
    }  # fmt: skip
    expected = {"seconds": 60.0, "low_s": 30.0, "high_s": 90.0, "source": "median of the last 9 runs", "samples": 9}
    more = {"attempts": [attempt] * min(count, 60), "events": [event] * min(count, 60), "expected": expected}
    daemon.on("GET", "/jobs/7", Answer(200, {**full(7), **more}))
    why = {
        "id": 7, "state": "queued", "reason": REASON, "reasons": [REASON, REASON], "position": 1, "outcome": None,
        "estimated_start": AT, "estimated_start_range": RANGE, "estimated_end": AT, "estimated_end_range": RANGE,
        "preemptions": [{"job_id": 7, "beneficiary": 9, "at": AT}], "error": f"{AT} {LONG}",
    }  # fmt: skip
    daemon.on("GET", "/jobs/7/why", Answer(200, why))
    daemon.on("GET", "/history", Answer(200, [ended(number) for number in range(1, min(count, 51) + 1)]))
    gpu = {
        "index": 0, "uuid": "GPU-" + "a" * 36, "model": "NVIDIA A100-SXM4-80GB", "memory_mb": 81920, "used_mb": 70000,
        "utilisation": 1.0, "temperature_c": 60, "power_w": 300.0, "state": "leased", "reason": None, "processes": [],
        "jobs": [{"id": 17, "name": LONG, "user": "bartholomew", "gpu_mem_mb": None}], "job": 17,
    }  # fmt: skip
    drained = {**gpu, "state": "drained", "jobs": [], "reason": {"code": "GpuUnhealthy", "text": f"fan, since {AT}"}}
    daemon.on("GET", "/gpus", Answer(200, [{**gpu, "index": n} for n in range(min(count, 60))] + [drained]))
    rows = [[f"user{n}-{LONG}", "2026-11-22", 1.5, 123456.789] for n in range(count)]
    daemon.on("GET", "/report/usage", Answer(200, {"columns": ["user", "day", "gpu_hours", "run_hours"], "rows": rows}))
    letter = {
        "job_id": 7, "name": LONG, "user": "bartholomew", "failed_at": AT, "outcome": "launch_error", "attempts": 3,
        "error": f"no folder since {AT}", "log_tail": f"0%\r50%\r100%\n{LONG}\n",
    }  # fmt: skip
    daemon.on("GET", "/dlq", Answer(200, [letter] * min(count, 60)))
    daemon.on("GET", "/dlq/7", Answer(200, letter))
    token = {
        "id": 1, "name": "laptop", "user": "bartholomew", "scope": "submit", "created_at": AT, "expires_at": AT,
        "revoked_at": AT, "last_used_at": AT,
    }  # fmt: skip
    daemon.on("GET", "/tokens", Answer(200, [token]))
    daemon.on("GET", "/groups", Answer(200, []))
    numbers = {"running": 1, "waiting": 0, "gpus": 4, "idle_gpus": 4, "gpu_hours": 5.0}
    idle = {"job_id": 7, "name": "bert", "gpus": 4, "since": AT}
    daemon.on("GET", "/who", Answer(200, [{"user": "bartholomew", **numbers, "idle": [idle]}]))


# What has to be seen of a line, however narrow the window.
MATTERS = {
    "status": (r"^ *1 .*gpu 0-3, ", r"^ *2 .*Resources: needs 4 GPUs"),
    "show 7": (r"Resources: needs 4 GPUs",),
    "why 7": (r"Resources: needs 4 GPUs", r"job 9 waits for it"),
    "gpus": (r"^ *0 .*job 17 \(", r"drained .*fan, since"),
    "history": (r"launch_error: no folder",),
    "report usage": (r"user0-",),
    "dlq list": (r"launch_error",),
    "dlq show 7": (r"^  \| 100%$", r"^  \| llama.*…$|sweep$"),
    "token list": (r"laptop",),
}


@pytest.mark.parametrize("count", [5, 60, 5000])
@pytest.mark.parametrize("command", MATTERS)
def test_no_line_is_wider_than_its_window_and_what_matters_is_seen(
    window: Any, daemon: StubDaemon, command: str, count: int
) -> None:
    answer(daemon, count)
    for columns in (80, 120, 200):
        lines = window(columns, *command.split())
        assert max(map(cells_of, lines)) <= columns
        for pattern in MATTERS[command]:
            assert any(re.search(pattern, line) for line in lines), (pattern, lines[:3])


# Every command that tells a moment, as it is called.
WITH_TIMES = {
    "status": ("status",), "show": ("show", "7"), "why": ("why", "7"), "history": ("history",), "gpus": ("gpus",),
    "dlq list": ("dlq", "list"), "dlq show": ("dlq", "show", "7"), "token list": ("token", "list"), "who": ("who",),
    "report": ("report", "usage", "--by", "user,day"),
}  # fmt: skip
# What tells none, or tells it in the words of `job_line`, of an error, or of the daemon's start.
WITHOUT = {
    *("up", "down", "server", "agent", "maintain", "submit", "run", "logs", "wait", "cancel", "hold", "release", "top"),
    *("update", "retry", "requeue", "pause", "resume", "clean", "sql", "simulate", "config", "doctor", "group", "web"),
    *("result", "limit", "drain", "undrain", "install-service", "contrib", "monitor"),
    *("gpus drain", "gpus undrain", "group limit", "dlq retry", "dlq purge", "db upgrade", "db current", "db backup"),
    *("db restore", "db adopt", "db reporter", "token create", "token revoke"),
}


def test_every_command_is_known_to_tell_times_or_not() -> None:
    assert set(COMMANDS) == WITH_TIMES.keys() | WITHOUT


@pytest.mark.parametrize("command", WITH_TIMES)
def test_every_time_is_the_readers_and_in_one_style(window: Any, command: str) -> None:
    text = "\n".join(window(0, *WITH_TIMES[command]))
    assert "10:00" not in text
    assert not re.search(r"\d(Z| UTC)\b", text), text
    clocks = re.findall(r"(?:\d{4}-\d\d-\d\d )?\b\d\d:\d\d(?::\d\d)?\b", text)
    assert set(clocks) <= {SHORT, FULL}
    if command == "report":
        assert "day (UTC)" in text
    else:
        assert clocks


@pytest.mark.parametrize("command", [name for name in WITH_TIMES if name != "report"])
def test_in_json_times_are_iso_8601_in_utc(window: Any, command: str) -> None:
    text = "\n".join(window(0, *WITH_TIMES[command], "--json"))
    json.loads(text)
    assert AT in text
    assert "15:45" not in text
