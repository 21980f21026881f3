"""Throwaway servers for the peers, on Unix sockets in their folder, as durable as people run them."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from peer_process import background

from gpuq.stores.redis.private import redis_binary

START_S = 30.0

# What a peer finds in its environment.
Server = AbstractContextManager[dict[str, str]]


@contextmanager
def redis(place: Path) -> Iterator[dict[str, str]]:
    """Writes every change to its file and syncs that every second, as its manual advises for what must be kept."""
    path = place / "redis.sock"
    words = [redis_binary.find(), "--port", "0", "--unixsocket", str(path), "--dir", str(place), "--save", ""]
    words += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
    with background(words, place=place, log=place / "server.log") as process:
        _wait(process, lambda: _pings(path), place)
        yield {"PEER_REDIS": f"unix://{path}"}


def _pings(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def postgres(place: Path) -> Iterator[dict[str, str]]:
    """With the settings of initdb: every commit is synced."""
    folder = _postgres_programs()
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        whose = pwd.getpwnam("postgres")
        account = {"user": whose.pw_uid, "group": whose.pw_gid, "extra_groups": []}
        os.chown(place, whose.pw_uid, whose.pw_gid)
    data = place / "data"
    initdb = [str(folder / "initdb"), "-D", str(data), "-U", "peer", "-A", "trust", "--locale=C", "-E", "UTF8"]
    done = subprocess.run(initdb, cwd=place, capture_output=True, text=True, **account)
    if done.returncode != 0:
        raise RuntimeError(f"initdb: {done.stderr.strip()}")
    words = [str(folder / "postgres"), "-D", str(data), "-k", str(place), "-c", "listen_addresses="]
    # SIGINT: connections that are left are cut.
    log = place / "server.log"
    with background(words, place=place, log=log, ends_on=signal.SIGINT, account=account) as process:
        _wait(process, lambda: _is_ready(data), place)
        yield {"PEER_POSTGRES": f"host={place} user=peer dbname=postgres"}


def _postgres_programs() -> Path:
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not places:
        raise RuntimeError("there is no PostgreSQL server (apt-get install postgresql)")
    return places[-1].parent


def _is_ready(data: Path) -> bool:
    """The server notes its state in the eighth line, for pg_ctl."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], place: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            last = (place / "server.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise RuntimeError(f"its server did not start: {' '.join(last)}")
        time.sleep(0.02)
