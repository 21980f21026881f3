"""Reading a job's output, also while it is written and after it ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BufferedReader

from gpuq.domain.states import FINAL
from gpuq.engine.context import Context
from gpuq.errors import NotFound
from gpuq.user_files import open_file

MAX_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogChunk:
    """`data` are bytes `offset` to `next_offset` of `size`. `final`: this attempt will write no more."""

    data: bytes
    offset: int
    next_offset: int
    size: int
    attempt: int
    final: bool


def read(ctx: Context, job_id: int, *, attempt: int | None = None, offset: int = 0, limit: int = 65_536) -> LogChunk:
    """A negative offset counts from the end. Without `attempt`: the newest. A job that has not run yet has an
    empty log of attempt 0. Raises NotFound."""
    with ctx.records.read() as tx:
        job = tx.job(job_id)
        attempts = {item.number: item for item in tx.attempts(job_id)}
    number = attempt if attempt is not None else job.attempt
    found = attempts.get(number)
    if found is None:
        if attempt is not None:
            raise NotFound(f"job {job_id} has no attempt {attempt}", hint=f"`gpuq show {job_id}` lists them")
        return LogChunk(b"", 0, 0, 0, 0, job.state in FINAL)
    ended = found.outcome is not None
    try:
        size, start, data = _read(found.log_path, job.uid, offset, limit)
    except OSError:
        return LogChunk(b"", 0, 0, 0, number, ended)
    return LogChunk(data, start, start + len(data), max(size, start + len(data)), number, ended)


def read_file(path: str, uid: int | None, offset: int, limit: int) -> tuple[int, int, bytes]:
    """The size of the log of user `uid`, and at most `limit` bytes of it from byte `offset`, with where they begin;
    nothing where there is no log."""
    try:
        return _read(path, uid, offset, limit)
    except OSError:
        return 0, max(0, offset), b""


def _read(path: str, uid: int | None, offset: int, limit: int) -> tuple[int, int, bytes]:
    with open_log(path, uid) as stream:
        size = stream.seek(0, 2)
        start = max(0, size + offset) if offset < 0 else min(offset, size)
        stream.seek(start)
        return size, start, stream.read(max(0, min(limit, MAX_CHUNK)))


def open_log(path: str, uid: int | None) -> BufferedReader:
    """The log in the own folder of a job of user `uid`. Raises OSError when there is none, and when anything else is in
    its place: see `user_files.open_file`."""
    folder, name = os.path.split(path)
    return os.fdopen(open_file(folder, name, uid), "rb")
