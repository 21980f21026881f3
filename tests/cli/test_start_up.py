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

# All that they import. Whoever adds to it says in the same change what that costs: each module is a file to find,
# read and run before the first byte is sent (`scripts/bench command_line`).
OURS = {
    "errors", "config_file", "cli", "cli.__main__", "cli.connect", "cli.dispatch", "cli.parse", "cli.parse.options",
    "cli.parse.command_table", "cli.parse.fast_parser", "cli.commands", "client", "client.address", "client.calls",
    "client.rule_calls", "client.session", "client.transport", "cli.render", "domain", "domain.quantities",
}  # fmt: skip
OURS_EACH = {
    "status": {"cli.commands.status", "cli.commands.job_columns", "cli.commands.job_detail"},
    "submit": {
        "cli.commands.submit", "cli.messages", "cli.parse.script", "cli.parse.spec", "client.environment",
    },
}  # fmt: skip
# Packages of the standard library that the interpreter has not loaded by itself; what they import is their own affair.
STANDARD = {
    "__future__", "array", "collections", "contextlib", "copyreg", "datetime", "enum", "errno", "functools",
    "importlib", "itertools", "json", "keyword", "math", "operator", "re", "reprlib", "select", "selectors", "signal",
    "socket", "time", "types", "warnings",
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
    ours = {name.removeprefix("gpuq.") for name in imported if name.startswith("gpuq.")}
    assert ours - OURS - OURS_EACH[line.split()[0]] == set()
    loaded_anyway = set(re.findall(r"\| +([\w.]+)$", _importtime("pass"), re.MULTILINE))
    theirs = {name.partition(".")[0] for name in imported - loaded_anyway} - {"gpuq"}
    assert {name for name in theirs if not name.startswith("_")} - STANDARD == set()


def _importtime(program: str) -> str:
    words = [sys.executable, "-X", "importtime", "-c", program]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stderr
