"""What is kept of the ends of attempts once SQL has them and their records are removed: one line each, in one file.

It is read only when SQL has forgotten an end: when a backup is restored in which the attempt still ran.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from gpuq.domain.outcome import Result
from gpuq.supervise import bundle, in_place, unconfirmed
from gpuq.supervise.spares import SpareFolders

# In the folder of all jobs.
NAME = "ended.jsonl"
# The ends before the last so many bytes are forgotten, half of it at once: a line has about 150 bytes.
_MOST_BYTES = 64 * 1024 * 1024
_LONGEST_ERROR = 300
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def note(run_dir: str, token: str, result: Result, gpus: Sequence[str] = ()) -> None:
    """`gpus`: UUIDs of those that it had. Raises OSError; then the records should stay."""
    path = _path(run_dir)
    record: dict[str, object] = {
        "run": _run(run_dir),
        "token": token,
        "gpus": list(gpus),
        "outcome": result.outcome.value,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "error": None if result.error is None else result.error[:_LONGEST_ERROR],
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "machine_fault": result.machine_fault,
    }
    line = bundle.line({name: value for name, value in record.items() if value is not None and value is not False})
    fd = os.open(path, _APPEND, 0o600)
    try:
        full = os.fstat(fd).st_size > _MOST_BYTES // 2
        # A line that a full disk cut off is no line: the next one begins anew.
        if os.write(fd, line) < len(line):
            os.write(fd, b"\n")
            raise OSError("the end was not written as a whole")
    finally:
        os.close(fd)
    if full:
        os.replace(path, f"{path}.1")


def settle(
    run_dir: str,
    token: str,
    result: Result,
    gpus: Sequence[str],
    report_fd: int,
    has_run: bool,
    spare: SpareFolders,
) -> None:
    """SQL has the end, so the records may go: the supervisor takes them away when it hears that on the other end of
    `report_fd`, else it is done here. `has_run`: its supervisor reported its process."""
    spare.note_over(run_dir)
    records = bundle.records_of(run_dir)
    try:
        if bundle.taken_over(records):
            # The fence stays, should the supervisor come to life again.
            return
        if not has_run and not in_place.is_written(records, bundle.EXIT):
            # Nobody has supervised it. What says that nobody may is still needed: see `engine.attempt.adopt`.
            return
        note(run_dir, token, result, gpus)
    except OSError:
        # The records stay, and do no harm.
        return
    keep = records != run_dir and spare.expect_records(records)
    try:
        if report_fd >= 0:
            os.write(report_fd, unconfirmed.KEEP if keep else unconfirmed.REMOVE)
            return
    except OSError:
        # It is gone, or does not wait any longer.
        pass
    unconfirmed.clear(records, keep=keep)


def find(run_dir: str, token: str) -> dict[str, object] | None:
    """The record of the attempt with that token; None without one, or when it cannot be read."""
    record = _last_with(_path(run_dir), f'"token": "{token}"')
    return record if record is not None and token and record.get("token") == token else None


def spec_of(run_dir: str) -> dict[str, object]:
    """What is still known of the spec of the attempt with that own folder; empty when nothing is."""
    run = _run(run_dir)
    record = _last_with(_path(run_dir), f'"run": "{run}"')
    if record is None or record.get("run") != run:
        return {}
    gpus = record.get("gpus")
    visible = ",".join(map(str, gpus)) if isinstance(gpus, list) else ""
    return {"token": record.get("token"), "env": {"CUDA_VISIBLE_DEVICES": visible}}


def _last_with(path: str, sign: str) -> dict[str, object] | None:
    for name in (path, f"{path}.1"):
        try:
            line = _line_with(name, sign.encode())
        except (OSError, ValueError):
            # None there, or an empty one.
            continue
        if line:
            return bundle.parsed(line)
    return None


def _line_with(path: str, sign: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as text:
            # From the end: who asks has lost the newest ones.
            at = text.rfind(sign)
            if at < 0:
                return b""
            end = text.find(b"\n", at)
            return text[text.rfind(b"\n", 0, at) + 1 : len(text) if end < 0 else end]
    finally:
        os.close(fd)


def _path(run_dir: str) -> str:
    return os.path.join(os.path.dirname(os.path.dirname(run_dir)), NAME)


def _run(run_dir: str) -> str:
    job, number = os.path.split(run_dir)
    return f"{os.path.basename(job)}/{number}"
