"""The ```console blocks of a page, carried out in order in a fresh home with a real daemon and four simulated GPUs.

A line that begins with `$ ` is a command, one that begins with `> ` goes on with it, and what follows is what it
prints. Times, durations, process ids, paths, names of the user and the host may differ; so may the width of columns. A
line `…` stands for any lines. An HTML comment before a block steers it:

    <!-- file: NAME -->        the block, of whatever language, is the text of that file
    <!-- not run: REASON -->   the block cannot be run here
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Where pages have the daemon listen; another port stands in for it.
PORT = "18100"
BIN = Path(sys.executable).parent
PATIENCE_S = 30.0

# Commands that only read may be asked again until they say what the page says: a reader waits in between, too.
READING = {"status", "why", "show", "history", "logs", "gpus", "group", "dlq", "sql", "report", "doctor", "curl", "cat"}

FENCE = re.compile(
    r"^(?:<!-- (?P<word>file|not run): (?P<about>[^\n]+?) -->\n\n?)?```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Command:
    line: str
    expected: list[str] = field(default_factory=list)

    @property
    def reads(self) -> bool:
        words = self.line.split()
        if words[0] == "curl":
            return "-d" not in words
        return words[0] in READING or (words[0] == "gpuq" and len(words) > 1 and words[1] in READING)


@dataclass(frozen=True)
class File:
    name: str
    text: str


@dataclass(frozen=True)
class Left:
    """A block with commands that is not run, and why not."""

    reason: str


def steps(page: str) -> Iterator[Command | File | Left]:
    """What a reader does who follows the page from its top."""
    for found in FENCE.finditer(page):
        if found["word"] == "file":
            yield File(found["about"], found["text"])
        elif found["word"] == "not run":
            yield Left(found["about"])
        elif found["kind"] == "sh":
            yield Left("")
        elif found["kind"] == "console":
            yield from commands(found["text"])


def starts_a_daemon(page: str) -> bool:
    """Whether the first block with commands does; otherwise a page takes it for granted that one runs."""
    first = re.search(r"^```console\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return first is not None and re.search(r"^\$ gpuq up( |$)", first[1], re.MULTILINE) is not None


def commands(text: str) -> Iterator[Command]:
    line, expected = "", []
    for row in [*text.splitlines(), "$ "]:
        if row.startswith("$ "):
            if line:
                yield Command(line, expected)
            line, expected = row[2:], []
        elif row.startswith("> ") and not expected:
            line += "\n" + row[2:]
        else:
            expected.append(row)


_LOOSE = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?Z?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "TIME"),
    (re.compile(r"\b\d\d-\d\d TIME"), "TIME"),
    (re.compile(r"[\d.]+[MG] free of [\d.]+[MG]"), "SIZE free of SIZE"),
    (re.compile(r"[\d,]+ bytes"), "N bytes"),
    (re.compile(r"mode 0\d+"), "mode 0700"),
    (re.compile(r"\S+/redis-server"), "redis-server"),
    (re.compile(r"\b(?:\d+(?:\.\d+)?\s?(?:ms|[smhd]))+\b"), "SPAN"),
    (re.compile(r"\bgpuq_[A-Za-z0-9_-]{20,}"), "TOKEN"),
    (re.compile(r"(?<![\d.])\b\d{4,7}\b|(?<=pid )\d+"), "PID"),
    (re.compile(r"\s+"), " "),
]


def normal(row: str) -> str:
    """A line without what differs from run to run."""
    for pattern, word in _LOOSE:
        row = pattern.sub(word, row)
    return row.strip()


def matches(expected: list[str], found: list[str]) -> bool:
    """Whether the lines are the same, `…` standing for any number of lines."""
    if not expected:
        return not found
    if expected[0] == "…":
        return any(matches(expected[1:], found[start:]) for start in range(len(found) + 1))
    return bool(found) and _same(expected[0], found[0]) and matches(expected[1:], found[1:])


def _same(expected: str, found: str) -> bool:
    """A job that may start at once can have been taken up before the answer about its submission was made."""
    queued, now, _ = expected.partition(" is queued, position 1, starts about ")
    return expected == found or bool(now and found in {f"{queued} is starting", f"{queued} is running"})


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


class Reader:
    """Somebody who follows a page: one shell, whose variables and folder stay from command to command."""

    def __init__(self, base: Path) -> None:
        self.home = base / "alice"
        self.home.mkdir()
        self.state = base / "state"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("GPUQ_", "XDG_"))}
        self.env = clean | {
            "HOME": str(self.home),
            "PATH": f"{BIN}:{clean['PATH']}",
            "GPUQ_HOME": str(self.home / ".local/share/gpuq"),
            "GPUQ_CONFIG": str(base / "config.toml"),
            "GPUQ_GPUS": "sim:4",
            "GPUQ_NODE": "box1",
            "GPUQ_RETRY_BASE": "0.2",
            "PYTHONWARNINGS": "ignore",
        }
        (base / "config.toml").touch()
        self.state.write_text(f"cd {shlex.quote(str(self.home))}\n")
        self.port = free_port()
        self.code = 0

    def run(self, line: str) -> list[str]:
        """What the command prints, on both of its outputs."""
        line = line.replace(PORT, self.port)
        script = (
            f". {self.state}; set -a; (exit {self.code})\n{line}\ncode=$?\nset +a\n"
            f'{{ export -p; printf "cd %q\\n" "$PWD"; }} >{self.state}; exit $code'
        )
        done = subprocess.run(
            ["bash", "-c", script], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        self.code = done.returncode
        return self._shared(done.stdout).splitlines()

    def _shared(self, text: str) -> str:
        text = text.replace(self.port, PORT).replace(str(self.home), "/home/alice").replace(str(BIN) + "/", "")
        return re.sub(rf"(?<![-/.\w]){re.escape(getpass.getuser())}\b", "alice", text)

    def carry_out(self, command: Command, patience_s: float = PATIENCE_S) -> tuple[bool, list[str]]:
        """Whether the command printed what the page says, and what it printed."""
        expected = [normal(row) for row in command.expected if row.strip()]
        if not command.reads:
            self._settle()
        deadline = time.monotonic() + patience_s
        while True:
            printed = [row for row in self.run(command.line) if row.strip()]
            if matches(expected, [normal(row) for row in printed]):
                return True, printed
            if not command.reads or time.monotonic() > deadline:
                return False, printed
            time.sleep(0.1)

    def follow(self, command: Command) -> None:
        """Fails unless the command prints what the page says, and ends well unless the page shows that it does not."""
        same, printed = self.carry_out(command)
        if not same:
            wanted = "\n".join(command.expected)
            pytest.fail(f"$ {command.line}\nshould print\n{wanted}\nand prints\n" + "\n".join(printed))
        told = any(row.startswith("gpuq: ") for row in command.expected) or "echo $?" in command.line
        assert self.code == 0 or told or command.line.startswith(("gpuq wait", "gpuq run")), command.line

    def _settle(self) -> None:
        """Until everything has started that can: there is no signal for that across processes, so it is asked for."""
        deadline = time.monotonic() + PATIENCE_S
        while self._moving():
            assert time.monotonic() < deadline, "the queue never came to rest"
            time.sleep(0.05)

    def _moving(self) -> bool:
        if not (self.home / ".local/share/gpuq/gpuq.sock").exists():
            return False
        done = subprocess.run(
            [str(BIN / "gpuq"), "status", "--json"], env=self.env, capture_output=True, text=True, check=False
        )
        jobs = json.loads(done.stdout) if done.returncode == 0 else []
        return any(
            job["state"] == "starting"
            or (job["state"] == "queued" and (job["reason"] is None or job["reason"]["code"] == "Starting"))
            for job in jobs
        )

    def close(self) -> None:
        """Ends the daemon and every job over its socket: a token that a page has made may not be good for that."""
        self.run("unset GPUQ_SERVER GPUQ_TOKEN; gpuq down --stop-jobs")


@contextlib.contextmanager
def one_reader() -> Iterator[Reader]:
    # Short, because a Unix socket's address may have 107 bytes.
    base = Path(tempfile.mkdtemp(prefix="gd-", dir="/tmp"))
    found = Reader(base)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(base, ignore_errors=True)
