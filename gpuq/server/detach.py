"""`gpuq up --detach`: the daemon in a session of its own, and word from it before the command returns.

The child writes one line of JSON into a pipe: what runs, or what kept it from running. A child that dies without a
word closes the pipe, so nothing here waits for a time to pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gpuq.errors import GpuqError
from gpuq.settings import Settings

MAX_LOG = 10 * 1024 * 1024
_TAIL_LINES = 10


def start(settings: Settings, arguments: list[str]) -> int:
    """Starts `python -m gpuq.server` with `arguments`, and tells on stderr how it went. The exit code: 0 when it is
    up, else that of what went wrong."""
    path = settings.home / "daemon.log"
    _keep_small(path)
    reading, writing = os.pipe()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpuq.server", *arguments, "--ready-fd", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=(writing,),
            cwd="/",
        )
    os.close(writing)
    with open(reading, "rb") as pipe:
        word = pipe.readline()
    if not word.endswith(b"\n"):
        return _died(child, path)
    answer = json.loads(word)
    if "lines" in answer:
        sys.stderr.write("\n".join(answer["lines"]) + f"\n  log {path}\n")
        # It is meant to outlive this process, which is no concern of the interpreter's.
        child.returncode = 0
        return 0
    child.wait()
    tell(answer["message"], answer["hint"])
    return int(answer["exit_code"])


def tell(message: str, hint: str | None) -> None:
    sys.stderr.write(f"gpuq: {message}\n" + (f"hint: {hint}\n" if hint else ""))


def _died(child: subprocess.Popen[bytes], path: Path) -> int:
    code = child.wait()
    lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    tell(f"the daemon ended at once (code {code}); its last words:", f"the whole log is {path}")
    sys.stderr.write("".join(f"  {line}\n" for line in lines))
    return 1


def _keep_small(path: Path) -> None:
    """The log of the run before is kept beside it once it has grown."""
    try:
        if path.stat().st_size > MAX_LOG:
            path.rename(path.with_name("daemon.log.1"))
    except FileNotFoundError:
        return


class Word:
    """The child's end of the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        # Neither the private Redis nor a job's supervisor may keep the pipe open.
        os.set_inheritable(fd, False)

    def up(self, lines: list[str]) -> None:
        self._send({"lines": lines})

    def failed(self, error: GpuqError) -> None:
        self._send({"message": error.message, "hint": error.hint, "exit_code": error.exit_code})

    def _send(self, answer: dict[str, object]) -> None:
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.write(fd, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            # Whoever started us is gone; the log has it too.
            pass
        finally:
            os.close(fd)


Ready = Callable[[list[str]], None]
