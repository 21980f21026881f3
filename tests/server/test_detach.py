"""Word from a daemon that is not up yet, to whoever called `gpuq up -d`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_UP = """
import sys
from pathlib import Path
from gpuq.server.process import detach
word = detach.fork(Path(sys.argv[1]))
if isinstance(word, int):
    sys.exit(word)
word.meanwhile("schema 0002")
word.meanwhile("schema 0003")
word.up(["gpuq is up"])
"""


def test_why_it_takes_long_is_told_before_what_runs_and_stands_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    done = subprocess.run([sys.executable, "-c", _UP, str(log)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["gpuq: schema 0002", "gpuq: schema 0003", "gpuq is up", f"  log {log}"]
    assert log.read_text().splitlines() == ["gpuq: schema 0002", "gpuq: schema 0003"]
