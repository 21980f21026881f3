"""`gpuq.lease`: GPUs for a process that is there already, a notebook for instance.

A job waits in line and holds them (`holder`); this process waits for its call. It lets go by closing the connection,
and whatever ends this process closes it as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuq.client.client import Client
from gpuq.domain.quantities import parse_duration
from gpuq.errors import JobCancelled, JobFailed, JobLost, Refused, TimeLimit
from gpuq.functions import holder

if TYPE_CHECKING:
    from typing import Unpack

    from gpuq.client.job import Job
    from gpuq.client.submission import Options

# Seconds between two looks at the job that waits in line.
_LOOK_S = 2.0
# Seconds that whoever has called may take to say who it is, and bytes for that.
_SAY_S = 5.0
_MOST = 65_536
_PEER = 12
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Lease:
    """GPUs that this process has. `job`: the one that holds them; `gpus`: their indices on this machine; `visible`:
    what `CUDA_VISIBLE_DEVICES` says."""

    def __init__(self, job: Job, environment: dict[str, str], connection: socket.socket) -> None:
        self.job = job
        self.gpus = tuple(int(index) for index in environment.get("GPUQ_GPUS", "").split(",") if index)
        self.visible = environment.get(_VISIBLE, "")
        self._connection = connection

    @property
    def held(self) -> bool:
        """False once the job was cancelled, stopped at its time limit or preempted: the GPUs may be somebody else's as
        soon as this process uses them no more."""
        if self._connection.fileno() < 0:
            return False
        readable, _, _ = select.select([self._connection], [], [], 0)
        return not readable

    def release(self) -> None:
        """Gives the GPUs back; again does nothing."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def __repr__(self) -> str:
        return f"Lease(job={self.job.id}, gpus={self.gpus})"


@contextlib.contextmanager
def lease(
    *,
    time_limit: str | float | None = None,
    timeout: float | None = None,
    client: Client | None = None,
    **options: Unpack[Options],
) -> Iterator[Lease]:
    """Waits in line for GPUs and holds them for this process, with `CUDA_VISIBLE_DEVICES` set, until the block is left
    or the process is gone, its forks included.

        with gpuq.lease(gpus=1, name="notebook") as gpu:
            model.cuda()

    `time_limit`: `2h`, or seconds. `timeout`: seconds to wait in line at most; None: as long as it takes. `client`: one
    of one's own. `options`: `gpus`, `name`, `group`, `priority` and the other fields of `Client.submit`.

    CUDA reads the variable when it is first used, so nothing may have used it before. Raises what `Client.submit`
    raises; TimeoutError; Refused where CUDA is in use already or the daemon is on another machine; JobCancelled,
    JobFailed, JobLost or TimeLimit when the job ended before it had its turn.
    """
    _require_untouched()
    ours = Client(direct=False) if client is None else None
    asked = client or ours
    assert asked is not None
    try:
        with _listening() as (listener, name):
            held = _wait(asked, listener, name, _job_options(time_limit, options), timeout)
        before = os.environ.get(_VISIBLE)
        os.environ[_VISIBLE] = held.visible
        try:
            yield held
        finally:
            held.release()
            if before is None:
                os.environ.pop(_VISIBLE, None)
            else:
                os.environ[_VISIBLE] = before
    finally:
        if ours is not None:
            ours.close()


def _require_untouched() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise Refused(
            "this process uses CUDA already, so it cannot be told which GPUs are its own",
            hint="take the lease first: in a notebook, restart the kernel",
        )


def _job_options(time_limit: str | float | None, options: Any) -> dict[str, Any]:
    """A lease is not retried: its process is there once."""
    seconds = parse_duration(time_limit) if isinstance(time_limit, str) else time_limit
    wanted = {"name": "lease", "max_retries": 0, "env": {}, "cwd": "/", **options}
    return wanted if seconds is None else {**wanted, "time_limit_s": seconds}


@contextlib.contextmanager
def _listening() -> Iterator[tuple[socket.socket, str]]:
    """An abstract socket: without a file that somebody could remove, and gone with this process."""
    name = f"gpuq-lease-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(4)
        yield listener, name


def _wait(client: Client, listener: socket.socket, name: str, options: Any, timeout: float | None) -> Lease:
    command = [sys.executable, "-I", "-S", str(Path(holder.__file__)), name]
    until = None if timeout is None else time.monotonic() + timeout
    job: Job = client.submit(command, **options)
    try:
        while True:
            left = _LOOK_S if until is None else min(_LOOK_S, until - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"job {job.id} had no turn within {timeout:g} s")
            if select.select([listener], [], [], left)[0] and (found := _called(listener)) is not None:
                return Lease(job, *found)
            job = client.job(job.id)
            if job.finished_at is not None:
                raise _ended(job)
    except BaseException:
        # Whoever does not wait any more wants no GPU either.
        with contextlib.suppress(Exception):
            client.cancel(job.id)
        raise


def _called(listener: socket.socket) -> tuple[dict[str, str], socket.socket] | None:
    """What the job says of itself, and the connection to it; None for a stranger. The name of the socket can be read by
    everybody, so it is the kernel who says that the job runs as this user."""
    connection, _ = listener.accept()
    with contextlib.ExitStack() as stack:
        stack.enter_context(connection)
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER)
        if int.from_bytes(peer[4:8], sys.byteorder) != os.getuid():
            return None
        connection.settimeout(_SAY_S)
        said = b""
        try:
            while not said.endswith(b"\n") and len(said) < _MOST:
                if not (piece := connection.recv(4096)):
                    return None
                said += piece
            environment = {str(key): str(value) for key, value in json.loads(said).items()}
        except (OSError, ValueError, AttributeError):
            return None
        connection.settimeout(None)
        stack.pop_all()
        return environment, connection


def _ended(job: Job) -> Exception:
    told = f"job {job.id} ended before it had its turn: {job.error or job.outcome or job.state}"
    kinds = {"cancelled": JobCancelled, "lost": JobLost, "time_limit": TimeLimit}
    return kinds.get(str(job.outcome), JobFailed)(told)
