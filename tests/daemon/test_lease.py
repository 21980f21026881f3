"""GPUs for a process that is there already, from a live daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpuq
from gpuq.functions import lease as leases


@pytest.fixture(scope="module")
def client(make_boxes: Callable[..., Any]) -> Iterator[gpuq.Client]:
    box = make_boxes(GPUQ_GPUS="sim:2", GPUQ_KILL_GRACE="1")
    box.up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUQ_HOME", str(box.home))
        with gpuq.Client(direct=False) as made:
            yield made


def states(client: gpuq.Client) -> dict[int, str]:
    return {gpu.index: str(gpu.state) for gpu in client.gpus()}


def test_gpus_are_held_while_the_block_lasts(client: gpuq.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    with gpuq.lease(gpus=1, name="notebook") as held:
        assert held.held
        assert len(held.gpus) == 1
        assert os.environ["CUDA_VISIBLE_DEVICES"] == held.visible
        assert states(client)[held.gpus[0]] == "leased"
        job = client.job(held.job.id)
        # The call may come before the record of the start.
        assert (job.name, str(job.state) in {"starting", "running"}) == ("notebook", True)
        with gpuq.lease(gpus=1) as other:
            assert other.gpus != held.gpus
            # The line is full now, and whoever does not want to wait for ever has not to.
            with pytest.raises(TimeoutError, match="had no turn within"), gpuq.lease(gpus=1, timeout=0.5):
                pass
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "before"
    assert not held.held
    ended = client.job(held.job.id).wait(timeout_s=30)
    assert (ended.state, ended.exit_code) == ("completed", 0)
    assert {str(job.state) for job in client.jobs()} <= {"completed", "cancelled"}


def test_a_process_that_is_killed_gives_them_back(client: gpuq.Client) -> None:
    program = (
        "import gpuq, sys\nwith gpuq.lease(gpus=2) as held:\n    print(held.job.id, flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        job_id = int(process.stdout.readline())
        assert set(states(client).values()) == {"leased"}
        process.send_signal(signal.SIGKILL)
    assert client.job(job_id).wait(timeout_s=30).state == "completed"


def test_a_lease_that_is_cancelled_is_seen_to_be_gone(client: gpuq.Client) -> None:
    with gpuq.lease(gpus=1, time_limit="1h") as held:
        client.cancel(held.job.id)
        client.job(held.job.id).wait(timeout_s=30)
        assert not held.held
    with pytest.raises(gpuq.JobCancelled):
        _cancelled_in_line()


def _cancelled_in_line() -> None:
    with gpuq.lease(gpus=2):
        other = threading.Thread(target=_cancel_the_one_in_line)
        other.start()
        try:
            with gpuq.lease(gpus=1):
                pass
        finally:
            other.join()


def _cancel_the_one_in_line() -> None:
    with gpuq.Client() as client:
        while not (waiting := [job for job in client.jobs() if job.state == "queued"]):
            threading.Event().wait(0.02)
        client.cancel(waiting[0].id)


def test_what_cannot_be_queued_is_refused_at_once(client: gpuq.Client) -> None:
    with pytest.raises(gpuq.Constraint), gpuq.lease(gpus=9):
        pass
    with pytest.raises(gpuq.UsageError), gpuq.lease(time_limit="soon"):
        pass


def test_a_process_that_uses_cuda_already_is_told_to_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        is_initialized = staticmethod(lambda: True)

    monkeypatch.setitem(sys.modules, "torch", type("Torch", (), {"cuda": Cuda}))
    with pytest.raises(gpuq.Refused, match="uses CUDA already"), gpuq.lease():
        pass


@pytest.mark.parametrize("said", [b"", b"nonsense\n", b"[1]\n", b"x" * 70_000])
def test_a_stranger_who_calls_is_nobody(said: bytes) -> None:
    with leases._listening() as (listener, name), socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(f"\0{name}")
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        assert leases._called(listener) is None


def test_another_user_who_calls_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with leases._listening() as (listener, name), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(f"\0{name}")
        caller.sendall(b'{"GPUQ_GPUS": "0"}\n')
        monkeypatch.setattr(leases.os, "getuid", lambda: 4242)
        assert leases._called(listener) is None


def test_the_holder_of_a_process_that_is_gone_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", leases.holder.__file__, "gpuq-lease-of-nobody"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is gone" in done.stderr
