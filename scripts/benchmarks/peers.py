"""Other queues on this machine, in the same run. Each in a process of its own, with servers of its own.

They live in `build/bench-peers`, so that nothing of theirs meets gpuq's own dependencies. A peer that cannot be
installed or does not run is named on stderr and left out; what it had measured until then stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import peer_servers
from floors import commit
from peer_process import background
from stats import Figure

from gpuq.errors import GpuqError

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VENV = ROOT / "build" / "bench-peers"


@dataclass(frozen=True)
class Amount:
    """How much of everything; `seconds` is the most that all peers together may take, `each_s` any one of them."""

    rounds: int
    single: int
    batch: int
    repeats: int
    seconds: float
    each_s: float
    jobs: int = 500


QUICK = Amount(rounds=20, single=200, batch=2_000, repeats=1, seconds=90, each_s=25)
FULL = Amount(rounds=100, single=1_000, batch=5_000, repeats=3, seconds=240, each_s=60)

# Name, script, the server it needs.
PEERS = (
    ("rq", "peer_rq.py", "redis"),
    ("huey on Redis", "peer_huey.py", "redis"),
    ("huey on SQLite", "peer_huey.py", None),
    ("celery", "peer_celery.py", "redis"),
    ("procrastinate", "peer_procrastinate.py", "postgres"),
    ("gq-local", "peer_gq.py", None),
)


def peers(quick: bool) -> list[Figure]:
    try:
        install()
    except (subprocess.CalledProcessError, OSError) as error:
        say(f"peers: left out, they could not be installed: {error}")
        return []
    amount = QUICK if quick else FULL
    end = time.monotonic() + amount.seconds
    figures = [commit(", before the peers")]
    for name, script, server in PEERS:
        left = min(end - time.monotonic(), amount.each_s)
        if left <= 0:
            say(f"peer {name}: left out, the time for peers is used up")
            continue
        try:
            figures += measure(script, server, amount, left, name)
        except (OSError, RuntimeError, KeyError, GpuqError) as error:
            say(f"peer {name}: left out: {error}")
    return [*figures, commit(", after the peers")]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def install() -> None:
    """Once for every content of the dependency group `bench`."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["bench"]
    stamp = VENV / "installed"
    digest = hashlib.sha256(json.dumps([wanted, sys.version]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say(f"installing the peers into {VENV.relative_to(ROOT)}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True, stdout=sys.stderr)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True, stdout=sys.stderr)
    stamp.write_text(digest)


def measure(script: str, server: str | None, amount: Amount, seconds: float, name: str) -> list[Figure]:
    # A short path, because sockets are in it, on a disk, and not below a folder that the account `postgres` may not
    # enter.
    place = Path(tempfile.mkdtemp(prefix="gpuq-peer-", dir="/var/tmp"))
    try:
        with _server(server, place) as env:
            return _run(script, {**os.environ, **env, "PEER_FOLDER": str(place)}, amount, seconds, name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _server(kind: str | None, place: Path) -> peer_servers.Server:
    if kind == "redis":
        return peer_servers.redis(place)
    if kind == "postgres":
        return peer_servers.postgres(place)
    return nullcontext({})


def _run(script: str, env: dict[str, str], amount: Amount, seconds: float, name: str) -> list[Figure]:
    words = [f"--{part}={getattr(amount, part)}" for part in ("rounds", "single", "batch", "jobs", "repeats")]
    place = Path(env["PEER_FOLDER"])
    said = place / "figures"
    words = [str(VENV / "bin" / "python"), str(HERE / script), *words]
    # When its time is up, it is asked to end and ends its workers.
    with background(words, place=place, log=said, env=env) as peer, suppress(subprocess.TimeoutExpired):
        peer.wait(timeout=seconds)
    lines = said.read_text("utf-8", "replace").splitlines()
    found = [line for line in lines if line.startswith('{"name"')]
    figures = [Figure(**json.loads(line)) for line in found]
    if peer.returncode != 0:
        others = [line for line in lines if line and line not in found]
        why = others[-1] if others else f"out of time, or exit status {peer.returncode}"
        say(f"peer {name}: ended early with {len(figures)} figures: {why}")
    return figures
