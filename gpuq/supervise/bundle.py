"""The records of an attempt: what its files are called, and how they are read and written.

An attempt has two folders, `jobs/ID/N` and `jobs/ID/N.records` in GPUQ_HOME.

`N.records`, the records, belongs to whoever runs the daemon, 0700. The job's user can make no name in it:

    spec.json      what to run                                      daemon, before the launch
    lock           held (flock) by the supervisor for life;         liveness
                   empty while the job's program has never existed
    control        FIFO; any line in it means "read stop.json"; one
                   with the attempt's token is the request itself,
                   for a disk that took no file                     whoever stops the job
    stop.json      the request to stop, may be rewritten            whoever stops the job
    limits.json    a new time limit and grace, may be rewritten     whoever changes the job
    started.json   who runs: process ids with their start times     supervisor
    exit.json      the true end; durable unless SQL has it soon     supervisor, once, last
    takeover.json  the end of an attempt whose supervisor did not
                   answer, durable, in place of exit.json           agent, before it does anything

`N`, the job's own folder (GPUQ_RUN_DIR), belongs to the job's user, 0700, who may do anything with it:

    output.log     stdout and stderr (script: the batch script)     the job itself
    progress.json  how far it is                                    the job itself

Once SQL has the end, the records are emptied and kept for a later attempt (see spares.py), so an empty file is no
record; and a line of `ended.jsonl` in the folder of all jobs keeps what the end was (see unconfirmed.py and ended.py).

Nothing in the own folder decides anything, and it is read as user_files.py says. The previous release had everything
in `N`, which was root's, and sticky, so that the user could add names there; its attempts are taken over and end in
that layout. So no record is trusted by its name: links are not followed, and one counts only when it is a file of
mode 0600 with one name, written by the folder's owner or by root.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat

SPEC = "spec.json"
LOCK = "lock"
CONTROL = "control"
STOP = "stop.json"
LIMITS = "limits.json"
STARTED = "started.json"
PROGRESS = "progress.json"
EXIT = "exit.json"
TAKEOVER = "takeover.json"
LOG = "output.log"

SCHEMA = 1
# Of opening what is not there, or is a link, or a socket.
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The plain C scanner: json.loads looks at much more memory, which a forked process has to copy.
_decode = json.JSONDecoder().raw_decode
# What a supervisor or a stop writes has a few hundred bytes; a spec holds the environment of its job.
_MAX_RECORD = 64 * 1024
_MAX_SPEC = 64 * 1024 * 1024
_DEEPEST = 20


class BadRecord(Exception):
    """What stands in the place of a record is none that counts; the text says why, for people."""


def records_of(run_dir: str) -> str:
    """The folder of records of the attempt whose own folder is `run_dir`, whether it is there or not: `run_dir` itself
    for an attempt that the previous release started."""
    records = run_dir + ".records"
    return run_dir if not os.path.isdir(records) and _holds_records(run_dir) else records


def _holds_records(run_dir: str) -> bool:
    """The previous release left spec and lock in each. Without them today's records were lost, to a job that removed
    them perhaps; and root's daemon does not believe a folder that is the user's."""
    try:
        seen = os.lstat(run_dir)
    except OSError:
        return False
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        return False
    return any(os.path.lexists(os.path.join(run_dir, name)) for name in (LOCK, SPEC, EXIT))


def write(run_dir: str, name: str, record: dict[str, object]) -> None:
    """Replaces a record as a whole, also after a power cut: a reader sees the old one or the new one.

    Raises OSError (disk full, folder gone); then the old record still stands.
    """
    target = os.path.join(run_dir, name)
    temporary = os.path.join(run_dir, f".{name}.{os.urandom(6).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            _hand_to_owner(fd, run_dir)
            _write_all(fd, json.dumps(record).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        _move_over(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(run_dir)


def create(run_dir: str, name: str, record: dict[str, object]) -> None:
    """Writes a record for the first and only time, without durability: who reads it too early, or after a crash in
    the middle, finds none. Raises OSError, FileExistsError when there is one."""
    path = os.path.join(run_dir, name)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, json.dumps(record).encode())
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def read(folder: str, name: str) -> dict[str, object] | None:
    """A record; None when there is none that counts (see `load`). Raises OSError when it cannot be known."""
    try:
        return load(folder, name)
    except BadRecord:
        return None


def load(folder: str, name: str) -> dict[str, object] | None:
    """A record; None when there is none. Raises BadRecord when it is torn, too large, not an object, nested too deep,
    or not a private file with one name that the folder's owner or root wrote; OSError when it cannot be known."""
    try:
        fd = os.open(os.path.join(folder, name), _READ_FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno in NO_FILE:
            raise BadRecord("it is no plain file") from None
        raise
    most = _MAX_SPEC if name == SPEC else _MAX_RECORD
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise BadRecord("it is no plain file")
        if seen.st_nlink == 0 or seen.st_size == 0:
            # Replaced since it was opened; or emptied, or cut off by a loss of power.
            return None
        if seen.st_nlink > 1 or seen.st_mode & 0o077 or seen.st_uid not in (0, os.stat(folder).st_uid):
            raise BadRecord("it is not a private file of the daemon's")
        data = read_at_most(fd, most) if seen.st_size <= most else b""
    finally:
        os.close(fd)
    if max(seen.st_size, len(data)) > most:
        raise BadRecord(f"it has more than {most // 1024} KiB")
    record = parsed(data)
    if record is None:
        raise BadRecord("it is torn, or no JSON object")
    if name != SPEC and deeper(record, _DEEPEST):
        raise BadRecord("it is nested too deep")
    return record


def read_of_attempt(run_dir: str, name: str, token: str) -> dict[str, object] | None:
    """As `load_of_attempt`; None also for what is none that counts."""
    try:
        return load_of_attempt(run_dir, name, token)
    except BadRecord:
        return None


def load_of_attempt(run_dir: str, name: str, token: str) -> dict[str, object] | None:
    """A record of the supervisor's, of the attempt with this token; see `load`, also for what is raised. The previous
    release did not write the token into all of them."""
    folder = records_of(run_dir)
    record = load(folder, name)
    if record is None:
        return None
    said = record.get("token")
    if said != token and (said or folder != run_dir):
        raise BadRecord("it is that of another attempt")
    return record


def taken_over(folder: str) -> bool:
    """Whether somebody else ends this attempt, so that its supervisor signals nobody and writes no end any more."""
    return os.path.lexists(os.path.join(folder, TAKEOVER))


def token_in(folder: str) -> str:
    """Of the attempt, as its spec has it; empty when that cannot be read."""
    try:
        return text(read(folder, SPEC) or {}, "token") or ""
    except OSError:
        return ""


def parsed(data: bytes) -> dict[str, object] | None:
    """None when it is torn, not an object, or nested deeper than the decoder goes."""
    try:
        record, _ = _decode(data.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def deeper(value: object, most: int) -> bool:
    """Whether something in it lies more than `most` objects and lists deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (most == 0 or any(deeper(one, most - 1) for one in inner))


def number(record: dict[str, object], key: str) -> float | None:
    """A finite number of a record, whatever else may stand there."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e18 else None


def integer(record: dict[str, object], key: str, below: int = 2**63) -> int | None:
    """A field of a record; None when it is absent, not a whole number, or of a size from `below` on, which neither a
    database nor the kernel takes."""
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < below else None


def text(record: dict[str, object], key: str) -> str | None:
    """A field of a record; None when it is absent or not text."""
    value = record.get(key)
    return value if isinstance(value, str) else None


def line(record: dict[str, object]) -> bytes:
    """A record for a pipe, short enough for one write that nothing can tear."""
    return json.dumps(record).encode() + b"\n"


def sync_folder(path: str) -> None:
    """Makes what was renamed or created in the folder survive a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _hand_to_owner(fd: int, run_dir: str) -> None:
    """What root writes into another's folder (a cancel from a root shell) must be readable for its supervisor."""
    if os.geteuid() == 0:
        owner = os.stat(run_dir)
        if owner.st_uid != 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)


def _move_over(temporary: str, target: str) -> None:
    try:
        os.rename(temporary, target)
    except IsADirectoryError:
        # A job may make a folder of that name in its way; that must not keep the true end from being written.
        os.rename(target, f"{target}.moved-{os.urandom(6).hex()}")
        os.rename(temporary, target)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_at_most(fd: int, most: int) -> bytes:
    """To its end, or little more than `most` bytes of what grows meanwhile."""
    parts, left = [], most + 1
    while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
