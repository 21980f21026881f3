"""What the everyday commands import decides how long they take."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, job

HEAVY = {
    "sqlalchemy", "redis", "pydantic", "pydantic_settings", "fastapi", "starlette", "typer", "click", "rich", "httpx",
    "ssl", "email", "http", "urllib", "asyncio", "subprocess", "typing", "dataclasses", "inspect", "logging",
    "argparse", "tempfile", "shutil", "gpuq.settings", "gpuq.client.client", "gpuq.client.values", "gpuq.client.job",
}  # fmt: skip


@pytest.mark.parametrize("line", ["status", "submit true", "submit --parsable -g 2 -t 2h true", "status --json"])
def test_everyday_commands_import_nothing_heavy(gpuq: Gpuq, daemon: StubDaemon, line: str) -> None:
    queue = {"running": 0, "queued": 1, "waiting": 1, "total": 1, "jobs": [job(1, position=1)]}
    daemon.on("GET", "/queue", Answer(200, queue))
    daemon.on("POST", "/jobs", Answer(201, job(1, position=1)))
    program = "import sys; from gpuq.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    # Without a config file: reading one takes tomllib, and with it typing.
    env = {name: value for name, value in gpuq.env.items() if name != "GPUQ_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, *line.split()], env=env, cwd=gpuq.work,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert {"json", "socket", "gpuq.client.calls"} <= imported
    assert imported & HEAVY == set()
