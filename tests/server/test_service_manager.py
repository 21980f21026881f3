"""What the service manager is told, over a socket that stands in for systemd's."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gpuq.server.process.daemon import DaemonStop
from gpuq.server.process.service_manager import ServiceManager


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_when_it_is_up_and_once_when_it_stops(tmp_path: Path, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": "@" + name if abstract else name, "HOME": "/"}
        going = DaemonStop(ServiceManager.of(environment))
        # What is started afterwards cannot speak in the daemon's name.
        assert environment == {"HOME": "/"}
        going.manager.ready()
        assert manager.recv(100) == b"READY=1"
        going.down()
        going.down()
        assert manager.recv(100) == b"STOPPING=1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-listens-here", "vsock:2:1234", "/" + "x" * 200])
def test_a_manager_that_cannot_be_reached_is_told_of_and_stops_nothing(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager(address).ready()
    assert "did not take READY=1" in caplog.text


def test_without_a_manager_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager.of({}).ready()
    ServiceManager("").stopping()
    assert caplog.text == ""
