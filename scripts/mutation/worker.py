"""A warm process in a copy of the tree: has the libraries imported, and forks a pytest for every order.

Orders and answers are JSON lines on stdin and stdout. Whatever a test started is gone before the answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
from plugin import Chosen, Mapping

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TEARDOWN_S = 10.0
_OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not postgres", "--hypothesis-seed=0", "-W", "ignore"]
_LIBRARIES = (
    "pytest",
    "hypothesis",
    "sqlalchemy",
    "alembic.command",
    "redis",
    "fakeredis",
    "pydantic_settings",
    "rich",
)


def main() -> None:
    root = Path(sys.argv[1])
    libc = ctypes.CDLL(None)
    # Daemons that tests detach become children of this process; it ends with the one that gives the orders.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, _leave)
    for name in _LIBRARIES:
        __import__(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    clock = int((root / "pyproject.toml").stat().st_mtime)
    for line in sys.stdin:
        order = json.loads(line)
        clock += 2
        answers.write(json.dumps(_obey(root, order, clock)) + "\n")
        answers.flush()


def _leave(*_: object) -> None:
    clear()
    os._exit(0)


def _obey(root: Path, order: dict[str, Any], clock: int) -> dict[str, Any]:
    if "path" not in order:
        return {"code": _fork(lambda: _map(root, order["tests"], Path(order["notes"])), root, order["timeout"])}
    file = root / order["path"]
    original = file.read_text()
    try:
        _put(file, order["source"], clock)
        return {"code": _fork(lambda: _test(order["tests"]), root, order["timeout"])}
    finally:
        _put(file, original, clock + 1)


def _put(file: Path, source: str, clock: int) -> None:
    file.write_text(source)
    # A compiled file is taken when time and size agree; times of this tree never repeat.
    os.utime(file, (clock, clock))


def _map(root: Path, tests: list[str], notes: Path) -> int:
    import pytest

    options = [word for word in _OPTIONS if word != "-x"]
    words = [f"--cov={root / 'gpuq'}", "--cov-context=test", "--cov-report=", "--cov-config=/dev/null"]
    plugins = [Mapping(root / "executed", notes)]
    return int(pytest.main([*options, *words, "--ignore=tests/unit/examples", *tests], plugins))


def _test(tests: list[str]) -> int:
    import pytest

    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    return int(pytest.main([*_OPTIONS, "--timeout=30", *files], [Chosen(tests)]))


def _fork(run: Any, root: Path, timeout: float) -> int | None:
    """The exit status of pytest; None when it had to be ended."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _child(run, root)
        finally:
            os._exit(code)
    fd = os.pidfd_open(pid)
    try:
        ended = bool(select.select([fd], [], [], timeout)[0])
        if not ended:
            # As Ctrl-C: fixtures take back what they made.
            os.kill(pid, signal.SIGINT)
            select.select([fd], [], [], _TEARDOWN_S)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
    status = os.waitpid(pid, 0)[1]
    clear()
    return os.waitstatus_to_exitcode(status) if ended else None


def _child(run: Any, root: Path) -> int:
    from hypothesis import settings

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    output = os.open(root / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for theirs, ours in ((null, 0), (output, 1), (output, 2)):
        os.dup2(theirs, ours)
    # The same examples each time, and no verdict that depends on how busy the machine is.
    settings.register_profile("mutate", deadline=None, derandomize=True, database=None)
    settings.load_profile("mutate")
    os.chdir(root)
    return int(run())


def clear() -> None:
    """Ends all descendants, and takes away the folders in /tmp in which servers of the tests ran."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with contextlib.suppress(psutil.Error):
                folder = Path(process.cwd())
                process.kill()
                if folder.name.startswith(("gpuq-redis-", "gpuq-pg-")):
                    shutil.rmtree(folder, ignore_errors=True)
        psutil.wait_procs(left, timeout=5)


if __name__ == "__main__":
    main()
