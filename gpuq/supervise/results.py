"""What a job leaves in its own folder for those who wait for it: a result (bytes and a media type) and a short one.

Any program may write `result` ($GPUQ_RESULT_FILE), `result.type` and `short_result` ($GPUQ_SHORT_RESULT_FILE). The
bytes stay in that folder; the supervisor makes them durable and notes size, type and the short text in the exit record,
before it tells of the end. They are files of the job's user: see user_files.py. Nothing here decides an outcome.
"""

from __future__ import annotations

import errno
import os

from gpuq import user_files
from gpuq.domain.results import RESULT, RESULT_TYPE, SHORT_RESULT
from gpuq.supervise import bundle
from gpuq.supervise.output_limit import size_text

_LONGEST_TYPE = 127
_LONGEST_SHORT = 1024
_RECORDS = ".records"
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def left_in(records: str, uid: int | None, most_bytes: int | None) -> dict[str, object]:
    """What the exit record of the attempt with these records says of its results; nothing for one without any, and
    costs two system calls then. `most_bytes` 0: no limit; None: the daemon that launched it knows of none.

    What cannot be kept is said in `result_error`, for people. Never raises, and never waits but for the disk.
    """
    if most_bytes is None or not records.endswith(_RECORDS):
        return {}
    folder = records.removesuffix(_RECORDS)
    found: dict[str, object] = {}
    errors = []
    for name, read in ((RESULT, _result), (SHORT_RESULT, _short)):
        if os.path.lexists(os.path.join(folder, name)):
            try:
                found |= read(folder, uid, most_bytes)
            except _NotKept as error:
                errors.append(str(error))
            except OSError as error:
                why = "it is no plain file of the job's user" if error.errno in _ABSENT else error.strerror
                errors.append(f"{name}: {why}")
    if errors:
        found["result_error"] = "; ".join(errors)
    return found


class _NotKept(Exception):
    """Its text says why, for people."""


def _result(folder: str, uid: int | None, most_bytes: int) -> dict[str, object]:
    fd = user_files.open_file(folder, RESULT, uid)
    try:
        size = os.fstat(fd).st_size
        if most_bytes and size > most_bytes:
            limit = size_text(most_bytes)
            raise _NotKept(f"the result was not kept: {size_text(size)} is more than {limit} (GPUQ_MAX_RESULT)")
        # Before anybody hears of the end: whoever reads `completed` finds the result, also after a loss of power.
        os.fsync(fd)
    finally:
        os.close(fd)
    bundle.sync_folder(folder)
    return {"result_bytes": size, "result_type": _type(folder, uid)}


def _type(folder: str, uid: int | None) -> str | None:
    try:
        said = _text(folder, RESULT_TYPE, uid, _LONGEST_TYPE)
    except (OSError, _NotKept):
        return None
    return said.strip() or None


def _short(folder: str, uid: int | None, most_bytes: int) -> dict[str, object]:
    said = _text(folder, SHORT_RESULT, uid, _LONGEST_SHORT).rstrip("\r\n")
    return {"short_result": said} if said else {}


def _text(folder: str, name: str, uid: int | None, most_bytes: int) -> str:
    fd = user_files.open_file(folder, name, uid)
    try:
        data = bundle.read_at_most(fd, most_bytes)
    finally:
        os.close(fd)
    if len(data) > most_bytes:
        raise _NotKept(f"the short result was not kept: it has more than {most_bytes} bytes")
    return data.decode("utf-8", "replace")
