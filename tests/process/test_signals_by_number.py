"""Signalling exactly one process where the kernel gives no descriptor of it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from dataclasses import dataclass

import pytest

from gpuq.supervise import processes


@dataclass
class Known:
    """A process as it was seen when it had this start time."""

    pid: int
    start: int


@pytest.mark.parametrize("descriptors", [True, False])
def test_signal_reaches_the_process_that_was_seen_and_none_that_has_its_number_later(
    monkeypatch: pytest.MonkeyPatch, descriptors: bool
) -> None:
    def none(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if not descriptors:
        monkeypatch.setattr(os, "pidfd_open", none)
    child = subprocess.Popen(["sleep", "100"])
    try:
        seen = processes.look(child.pid)
        assert seen is not None
        assert not processes.send(Known(seen.pid, seen.start + 1), signal.SIGKILL)
        assert child.poll() is None
        assert processes.send(seen, signal.SIGTERM)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        # It has ended and its number is not given back yet.
        assert not processes.send(seen, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
        assert not processes.send(seen, signal.SIGTERM)
    finally:
        child.kill()
        child.wait()


def test_process_that_is_gone_has_no_name_no_start_and_no_handler() -> None:
    child = subprocess.Popen(["sleep", "100"])
    seen = processes.look(child.pid)
    assert seen is not None
    child.kill()
    child.wait()
    assert (processes.look(child.pid), processes.name_of(child.pid)) == (None, b"")
    assert not processes.catches(seen, signal.SIGTERM)
    assert not processes.carries(seen, b"A=1")
    with pytest.raises(ProcessLookupError, match=f"no process {child.pid}"):
        processes.start_of(child.pid)
