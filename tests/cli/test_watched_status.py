"""`gpuq status -w` in a window: the top stays, and the last line counts what there is no room for."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from typing import Any

from stub_daemon import Answer, Gpuq, StubDaemon, job

PATIENCE_S = 20.0


def first_frame(gpuq: Gpuq, rows: int, columns: int, last: str) -> str:
    """What a window of that size is sent until `last` has come."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    env = {name: value for name, value in gpuq.env.items() if name not in {"LINES", "COLUMNS"}}
    with subprocess.Popen(
        [sys.executable, "-m", "gpuq.cli", "status", "-w"], env={**env, "NO_COLOR": "1"}, cwd=gpuq.work,
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    ) as watching:  # fmt: skip
        os.close(slave)
        said = ""
        try:
            while last not in said:
                assert select.select([master], [], [], PATIENCE_S)[0], said
                said += os.read(master, 65536).decode()
        finally:
            watching.send_signal(signal.SIGINT)
            watching.wait(PATIENCE_S)
            os.close(master)
    return said.replace("\r\n", "\n")


def test_the_window_is_filled_and_never_scrolled(gpuq: Gpuq, daemon: StubDaemon) -> None:
    jobs: list[Any] = [job(number, position=number) for number in range(1, 51)]
    daemon.on("GET", "/queue", Answer(200, {"running": 0, "waiting": 400, "total": 400, "jobs": jobs}))
    for rows in (10, 24):
        said = first_frame(gpuq, rows, 80, " 400 waiting")
        frame = said.rpartition("\x1b[2J")[2]
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).split("\n")
        assert len(lines) == rows
        assert lines[0].split()[0] == "ID"
        assert lines[1].split()[0] == "1"
        assert lines[-1].startswith(f"{50 - (rows - 2)} more below the window; 0 running, 400 waiting")
