"""The command line thousands of times: a process that has everything imported forks for each line, and has a clock.

`QuickCli` is the tests' side, `python quick_cli.py` the other.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# What a person never may see, whatever was typed.
_BUGS = ("traceback", "internal error", "this is a bug")


@dataclass(frozen=True)
class Said:
    """`code` is None for a command that was still running when its time was over."""

    code: int | None
    out: str
    err: str

    def wrong(self) -> str | None:
        """What is no answer to a person: a bug's words, or a code that is none of gpuq's own."""
        for word in _BUGS:
            if word in self.err.lower() or word in self.out.lower():
                return f"it says {word!r}"
        if self.code is not None and self.code not in {0, 2, 3, 4, 5, 124, 125, 130, 141}:
            return f"exit code {self.code}"
        return None


class QuickCli:
    """Runs command lines with the environment `env` in the folder `cwd`, one after another."""

    def __init__(self, env: Mapping[str, str], cwd: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *words: str, env: Mapping[str, str] | None = None, stdin: bytes = b"", seconds: float = 5.0
    ) -> Said:
        """`words` may hold what no shell can pass, and lone surrogates for bytes that are no text."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        asked = {"words": words, "env": dict(env or {}), "stdin": stdin.decode("latin-1"), "seconds": seconds}
        self._child.stdin.write(json.dumps(asked) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._child.stdout.readline())
        return Said(answer["code"], answer["out"], answer["err"])

    def close(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait(30)
        self._child.stdout.close()


@pytest.fixture(scope="module")
def make_quick_cli() -> Iterator[Callable[..., QuickCli]]:
    made: list[QuickCli] = []

    def make(env: Mapping[str, str], cwd: Path) -> QuickCli:
        made.append(QuickCli(env, cwd))
        return made[-1]

    yield make
    for cli in made:
        cli.close()


def _serve() -> None:
    _import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(asked["stdin"].encode("latin-1"))
            given.seek(0)
            pid = os.fork()
            if pid == 0:
                _carry_out(asked, given.fileno(), out.fileno(), err.fileno())
            code = _wait(pid, asked["seconds"])
            texts = [_text(file) for file in (out, err)]
        print(json.dumps({"code": code, "out": texts[0], "err": texts[1]}), flush=True)


def _import_all() -> None:
    """So that each command finds it there."""
    import importlib
    import pkgutil

    import dateparser

    import gpuq.cli.app
    import gpuq.cli.commands
    import gpuq.settings

    for module in pkgutil.iter_modules(gpuq.cli.commands.__path__):
        importlib.import_module(f"gpuq.cli.commands.{module.name}")
    dateparser.parse("tomorrow", languages=["en"])
    assert gpuq.cli.app
    assert gpuq.settings


def _carry_out(asked: Mapping[str, Any], given: int, out: int, err: int) -> None:
    """In the child; does not return."""
    code = 1
    try:
        os.setpgid(0, 0)
        for fd, place in ((given, 0), (out, 1), (err, 2)):
            os.dup2(fd, place)
        sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        os.environ.update(asked["env"])
        from gpuq.cli.__main__ import main

        code = main(asked["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child has no caller, and the tests read what it prints
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, seconds: float) -> int | None:
    """The exit code; None when the command had to be ended, with what it started."""
    fd = os.pidfd_open(pid)
    ended, _, _ = select.select([fd], [], [], seconds)
    os.close(fd)
    if not ended:
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if ended else None


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read(100_000).decode("utf-8", "replace"))


if __name__ == "__main__":
    _serve()
