"""A daemon that cannot start says why in one line, and what to do next in another."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuq.errors import HotStoreUnavailable
from gpuq.server.process import start_errors
from gpuq.stores.redis.private import redis_binary, server
from gpuq.stores.redis.private.server import PrivateRedis

WEAK = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search")


@pytest.fixture
def folder() -> Iterator[Path]:
    # Short, because a Unix socket's path is.
    path = Path(tempfile.mkdtemp(prefix="gpuq-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


Told = tuple[int, str, str]
Up = Callable[..., Told]


@pytest.fixture
def up(folder: Path) -> Up:
    """(exit code, what is wrong, what to do next) of `up` in the home `folder/h`."""

    def run(*words: str, home: Path | None = None, before: tuple[str, ...] = (), **variables: str) -> Told:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "GPUQ_HOME": str(home or folder / "h"), "LANG": "C.UTF-8",
            "GPUQ_GPUS": "sim:1", "GPUQ_NODE": "box", "GPUQ_CONFIG": str(folder / "config.toml"), **variables,
        }  # fmt: skip
        (folder / "config.toml").touch()
        done = subprocess.run(
            [*before, sys.executable, "-m", "gpuq.server", "up", *words], env=environment, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        told = [line for line in done.stderr.splitlines() if line.startswith(("gpuq: ", "hint: "))]
        assert "Error" not in done.stderr
        assert "internal" not in done.stderr
        assert "Traceback" not in done.stderr
        assert len(told) == 2, done.stderr
        assert (told[0][:6], told[1][:6]) == ("gpuq: ", "hint: ")
        return done.returncode, told[0][6:], told[1][6:]

    (folder / "h").mkdir(mode=0o700)
    return run


@pytest.mark.parametrize("name", ["daemon.lock", "agent-box.lock"])
def test_a_folder_in_the_place_of_a_lock(up: Up, folder: Path, name: str) -> None:
    (folder / "h" / name).mkdir()
    code, wrong, next_step = up()
    assert (code, wrong) == (1, f"the daemon cannot start: {folder}/h/{name}: Is a directory")
    assert next_step == "something else stands in its place: move that away, and it is made anew"


def test_a_log_that_cannot_be_written(up: Up, folder: Path) -> None:
    (folder / "h" / "daemon.log").mkdir()
    code, wrong, next_step = up("--detach")
    assert (code, wrong) == (1, f"the daemon cannot start: {folder}/h/daemon.log: Is a directory")
    assert next_step.endswith("it is made anew")


def test_a_file_in_the_place_of_the_folder_of_redis(up: Up, folder: Path) -> None:
    (folder / "h" / "redis").touch()
    code, wrong, next_step = up()
    assert (code, wrong) == (1, f"the daemon cannot start: {folder}/h/redis: File exists")
    assert next_step.endswith("it is made anew")


def test_something_in_the_place_of_the_socket(up: Up, folder: Path, redis_server_path: object) -> None:
    (folder / "h" / "gpuq.sock").mkdir()
    code, wrong, next_step = up()
    assert (code, wrong) == (4, f"cannot listen on {folder}/h/gpuq.sock: Is a directory")
    assert next_step == "something else stands in its place: move that away"


def test_a_home_that_takes_no_files(up: Up, folder: Path) -> None:
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to take that away")
        before = WEAK
    (folder / "h").chmod(0o500)
    code, wrong, next_step = up(before=before)
    assert (code, wrong) == (1, f"the daemon cannot start: {folder}/h/daemon.lock: Permission denied")
    assert next_step == (
        f"{folder}/h/daemon.lock and its folder have to be yours (you are uid {os.geteuid()}): see `ls -l`,"
        " or set GPUQ_HOME"
    )
    (folder / "h").chmod(0o700)
    (folder / "h" / "daemon.lock").touch(mode=0o000)
    code, wrong, next_step = up(before=before)
    assert (code, wrong) == (1, f"the daemon cannot start: {folder}/h/daemon.lock: Permission denied")


def test_a_home_that_cannot_be_made(up: Up, folder: Path) -> None:
    (folder / "file").touch()
    code, wrong, next_step = up(home=folder / "file" / "h")
    assert (code, wrong) == (2, f"cannot make {folder}/file/h: Not a directory")
    assert next_step == "set GPUQ_HOME to a folder of yours"


def test_a_port_that_is_taken(up: Up, redis_server_path: object) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, wrong, next_step = up("--listen", address)
    assert (code, wrong) == (4, f"cannot listen on {address}: Address already in use")
    assert next_step == "another program listens there: choose another port, or find it with `ss -ltnp`"


def test_a_path_that_is_too_long_for_a_socket(up: Up, folder: Path, redis_server_path: object) -> None:
    home = folder / ("x" * 100)
    code, wrong, next_step = up(home=home)
    assert (code, wrong) == (4, f"the socket's path is longer than 107 bytes: {home}/gpuq.sock")
    assert next_step == "choose a shorter GPUQ_HOME, or link to it from a short path"


def test_a_database_that_is_away_is_none_or_has_another_schema(up: Up, folder: Path) -> None:
    code, wrong, next_step = up(GPUQ_DATABASE_URL="postgresql+psycopg://x@127.0.0.1:1/x")
    assert code == 5
    assert wrong.startswith("PostgreSQL cannot be reached (")
    assert next_step.endswith("GPUQ_DATABASE_URL says where it is")
    (folder / "h" / "gpuq.db").write_bytes(b"x" * 9999)
    code, wrong, next_step = up()
    assert (code, wrong) == (5, "the database file is not a database (file is not a database)")
    assert next_step == "check GPUQ_DATABASE_URL, or restore a backup"


def test_a_config_file_that_cannot_be_read_or_is_wrong(up: Up, folder: Path) -> None:
    (folder / "folder").mkdir()
    code, wrong, next_step = up(GPUQ_CONFIG=str(folder / "folder"))
    assert code == 2
    assert str(folder / "folder") in wrong
    (folder / "config.toml").write_text("kill_grace = 'x'\n")
    code, wrong, next_step = up()
    assert (code, wrong) == (2, f"bad setting kill_grace (from {folder}/config.toml): must be a number")
    assert next_step == "write a number of seconds: 30"


# redis-server.


def program(folder: Path, text: str) -> str:
    path = folder / "redis-server"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_no_redis_server_or_one_that_is_no_program(up: Up, folder: Path) -> None:
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    code, wrong, next_step = up(PATH=str(bin_folder))
    if "no redis-server program was found" in wrong:
        assert (code, "GPUQ_REDIS_URL" in next_step) == (5, True)
    path = program(bin_folder, "no program\n")
    code, wrong, next_step = up(PATH=f"{bin_folder}:{os.environ['PATH']}")
    assert code == 5
    assert f"{path} is no program that runs here: Exec format error" in wrong
    assert f"`{path} --version` has to answer" in next_step


def test_a_redis_server_that_is_too_old_is_told_by_its_version(folder: Path) -> None:
    old = '#!/bin/sh\n[ "$1" = --version ] && echo "Redis server v=3.2.6 sha=0:0 malloc=libc" && exit 0\nexit 1\n'
    path = program(folder, old)
    with pytest.raises(HotStoreUnavailable) as told:
        PrivateRedis(folder / "h", server_program=path).start()
    assert told.value.message == f"{path} is version 3.2.6; gpuq needs 6.0 or newer"
    assert told.value.hint is not None
    assert "apt-get install redis-server" in told.value.hint


def test_a_redis_server_that_says_nothing_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "START_S", 0.2)
    monkeypatch.setattr(redis_binary, "_ASK_S", 0.2)
    path = program(folder, "#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(HotStoreUnavailable) as told:
        PrivateRedis(folder / "h", server_program=path).start()
    assert "was silent for 0 s: it said nothing" in told.value.message
    assert told.value.hint is not None
    assert f"`{path} --version` has to answer" in told.value.hint


# What cannot be brought about here.


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EAGAIN, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ENOLCK, 999],
)
def test_every_failure_of_the_system_has_a_next_step(number: int) -> None:
    error = start_errors.of_system(OSError(number, "it failed", "/h/x"))
    assert error.message == "the daemon cannot start: /h/x: it failed"
    assert error.hint
    assert start_errors.of_system(OSError("odd")).message == "the daemon cannot start: odd"
