"""One question of a person's to the history, answered in a process of its own. Standard library, and psycopg.

A process, because nothing else can be limited and ended for certain: one value of PostgreSQL's may have a gigabyte,
and a comparison of two long texts is not interrupted by anything. Memory, time, rows and bytes of the answer are
bounded here; the daemon waits, and hands on a file.

    stdin    one JSON object: `sql`, `limit`, `bounds`, and `path` (SQLite) or `connect` (PostgreSQL)
    stdout   the answer, `{"columns": [...], "rows": [[...], ...]}`; whole only if the verdict is `done`
    stderr   the verdict, one line of JSON: `{"end": "done"}`, or which bound was met, or what the database said
"""

import contextlib
import importlib
import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

# Of the interpreter and the drivers, beside what a question may use.
OWN_MEMORY = 256 * 1024 * 1024
# How often it is looked whether whoever asked is still there.
LOOK_S = 0.2
NOBODY = 65534


class Ended(Exception):
    """The question has no answer. `verdict`: what is told."""

    def __init__(self, end: str, **more: object) -> None:
        super().__init__(end)
        self.verdict = {"end": end, **more}


class Answer:
    """Writes the rows as they come, and counts."""

    def __init__(self, out: BinaryIO, bounds: dict[str, Any], limit: int | None) -> None:
        self._out = out
        self._rows_left = int(bounds["rows"])
        self._bytes_left = int(bounds["bytes"])
        self._limit = limit

    def write(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """The whole answer, or its first `limit` rows. Raises Ended("rows") and Ended("bytes")."""
        self._put('{"columns": ' + json.dumps(columns) + ', "rows": [')
        for number, row in enumerate(rows):
            if number == self._limit:
                break
            if self._rows_left == 0:
                raise Ended("rows")
            self._rows_left -= 1
            self._put((",\n" if number else "\n") + json.dumps([plain(value) for value in row], default=str))
        self._put("\n]}\n")
        self._out.flush()

    def _put(self, text: str) -> None:
        data = text.encode()
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise Ended("bytes")
        self._out.write(data)


def plain(value: Any) -> Any:
    """As JSON can carry it: times as ISO 8601 in UTC, bytes in hex, what is no finite number as null."""
    if isinstance(value, datetime):
        at = value.astimezone(UTC) if value.tzinfo else value
        return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        if value.is_finite() and value == value.to_integral_value() and abs(value) < 2**63:
            return int(value)
        value = float(value) if value.is_finite() else None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value


def tell(verdict: dict[str, Any]) -> NoReturn:
    """Says how it ended, and ends. One write, so that two threads cannot mix their words; the first one counts."""
    try:
        os.write(2, json.dumps(verdict).encode() + b"\n")
    finally:
        # Also when nobody listens any more.
        os._exit(0)


def watch(asker: int, deadline: float, cancel: list[Callable[[], object]]) -> None:
    """Ends this process when its time is over or nobody waits for the answer any more; PostgreSQL is told first."""
    while (left := deadline - time.monotonic()) > 0 and os.getppid() == asker:
        time.sleep(max(0.0, min(LOOK_S, left)))
    for each in cancel:
        # With a time limit of its own: a server that hangs must not keep us.
        threading.Thread(target=each, daemon=True).start()
        time.sleep(LOOK_S)
    tell({"end": "time"})


def bound(memory: int, seconds: float, size: int) -> None:
    """What the kernel holds, whatever the database does."""
    for what, most in (
        (resource.RLIMIT_AS, memory + OWN_MEMORY),
        (resource.RLIMIT_CPU, math.ceil(seconds) + 5),
        (resource.RLIMIT_FSIZE, size + (1 << 20)),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def stop_being_root() -> None:
    """What is open by now is enough; whoever found a hole in the database's code would be nobody."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    """Answers the one question on stdin."""
    asked = json.loads(sys.stdin.buffer.read())
    bounds = asked["bounds"]
    deadline = time.monotonic() + bounds["seconds"]
    bound(bounds["memory"], bounds["seconds"], bounds["bytes"])
    cancel: list[Callable[[], object]] = []
    threading.Thread(target=watch, args=(asked["asker"], deadline, cancel), daemon=True).start()
    answer = Answer(sys.stdout.buffer, bounds, asked["limit"])
    try:
        database = importlib.import_module("on_sqlite" if "path" in asked else "on_postgres")
        database.ask(asked, answer, deadline, cancel)
    except Ended as ended:
        tell(ended.verdict)
    except MemoryError:
        tell({"end": "memory"})
    except OSError as error:
        tell({"end": "room", "words": error.strerror or str(error)})
    except Exception as error:  # noqa: BLE001, whatever it is is told
        tell({"end": "failed", "words": f"{type(error).__name__}: {error}"})
    tell({"end": "done"})


if __name__ == "__main__":
    # The module itself is what the others mean by it, not a second one beside this `__main__`.
    sys.modules["reading_process"] = sys.modules["__main__"]
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
