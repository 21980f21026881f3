"""One user's half-open connections, against the commands and the jobs of the others."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from accounts import Account, Accounts, connect_as

# What the daemon of this test may have, so that little is needed to use it up; without the bounds of the daemon every
# one would be gone.
DESCRIPTORS = 1000
FLOOD = 1200


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """The daemon is started with 200 and may have DESCRIPTORS; this process has room for both ends of a flood."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FLOOD + 500:
        pytest.skip(f"no more than {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(account: Account, path: str) -> socket.socket | None:
    """A connection whose header does not end; None when the daemon has turned it away."""
    connection = connect_as(account, path)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b"GET /jobs HTTP/1.1\r\nX-a: ")
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if connection.recv(64):
                connection.close()
                return None
    return connection


@pytest.mark.usefixtures("few_descriptors")
def test_half_open_connections_of_one_user_stop_nobody_else(
    make_root_box: Callable[..., Any], accounts: Accounts
) -> None:
    box = make_root_box()
    box.gpuq("up", "-d", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, DESCRIPTORS)))
    daemon = box.daemon()
    assert daemon.rlimit(psutil.RLIMIT_NOFILE) == (DESCRIPTORS, DESCRIPTORS)
    with contextlib.ExitStack() as stack:
        for _ in range(FLOOD):
            if (connection := half_open(accounts.alice, box.socket_path)) is not None:
                stack.callback(connection.close)
        # Many more would fit, and the others' are those.
        assert daemon.num_fds() < DESCRIPTORS // 2
        for account in (accounts.bob, accounts.carol, None):
            assert box.call(account, "GET", "/queue").status == 200
        job = box.submit_as(accounts.bob, "ulimit -S -n")
        assert box.until_state(job, "completed", "failed")["outcome"] == "succeeded"
        # Its limit is not the daemon's, with which it would close a million of descriptors.
        assert box.call(accounts.bob, "GET", f"/jobs/{job}/log").body.split() == [b"200"]
    # What is closed counts no longer.
    box.until(lambda: half_open_answers(accounts.alice, box), "the one who had them may call again")


def half_open_answers(account: Account, box: Any) -> bool:
    with contextlib.suppress(OSError):
        return bool(box.call(account, "GET", "/healthz").status == 200)
    return False
