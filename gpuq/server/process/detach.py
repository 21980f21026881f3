"""`gpuq up --detach`: the daemon in a session of its own, and word from it before the command returns.

The child writes a line of JSON into a pipe: what runs, or what kept it from running; before that, why it takes long. A
child that dies without a word closes the pipe, so nothing here waits for a time to pass.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from gpuq.errors import GpuqError

MAX_LOG = 10 * 1024 * 1024
_TAIL_LINES = 10


class Interrupted(BaseException):
    """A signal to stop came while the daemon was still starting. Not an Exception, so that nothing on the way
    takes it for a failure that it could handle."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum


def fork(log_path: Path) -> ReadyPipe | int:
    """Returns twice. In the child, which is to be the daemon: its end of the pipe. In the parent, when the child has
    reported: the exit code, 0 when it is up, else that of its error. Must be called by a process with a
    single thread."""
    _keep_small(log_path)
    reading, writing = os.pipe()
    output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _detached(output)
        return ReadyPipe(writing)
    os.close(writing)
    os.close(output)
    with open(reading, "rb") as pipe:
        while True:
            word = pipe.readline()
            if not word.endswith(b"\n"):
                return _died(_exit_code(child), log_path)
            answer = json.loads(word)
            if "meanwhile" not in answer:
                break
            tell(answer["meanwhile"], None)
    if "lines" in answer:
        sys.stderr.write("\n".join(answer["lines"]) + f"\n  log {log_path}\n")
        return 0
    _exit_code(child)
    tell(answer["message"], answer["hint"])
    return int(answer["exit_code"])


def _detached(output: int) -> None:
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def tell(message: str, hint: str | None) -> None:
    sys.stderr.write(f"gpuq: {message}\n" + (f"hint: {hint}\n" if hint else ""))


def _died(code: int, path: Path) -> int:
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


class ReadyPipe:
    """The child's end of the pipe."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        # Neither the private Redis nor a job's supervisor may keep the pipe open.
        os.set_inheritable(fd, False)

    def meanwhile(self, text: str) -> None:
        """Why it is not up yet; also into the log."""
        tell(text, None)
        if self._fd is not None:
            with suppress(BrokenPipeError):
                os.write(self._fd, json.dumps({"meanwhile": text}).encode() + b"\n")

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
