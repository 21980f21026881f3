"""The last will of a supervisor: what its fork server writes down for it when it is killed.

A page of memory that both share, so that keeping it costs no system call. It says what is known so far, and once the
job's main process has ended it holds the whole exit record. In the moment between that end and the record in the page
the process is still a zombie: it passes on to the fork server, a subreaper as well, which then sees the status.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct

from gpuq.supervise import bundle, classify, results
from gpuq.supervise.last_word import HomeGone, write_end

_HALF = 4096
# The first byte of the page names the half that counts: 1, 2, or 0 for none. So a will is replaced as a whole.
_HEAD = 8
_LENGTH = struct.Struct("=I")
_decode = json.JSONDecoder().raw_decode
# Without the supervisor these signals are ambiguous: the job's own end, a shutdown, or the kernel's kill because the
# supervisor is dead.
_UNTOLD = (-int(signal.SIGTERM), -int(signal.SIGKILL))


class CrashRecord:
    """Made before the fork; the child writes, the parent reads after its death."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * _HALF)

    def write(self, record: dict[str, object]) -> None:
        """Takes the place of the last one; of one that is too long nothing is kept."""
        data = json.dumps(record).encode()
        if len(data) > _HALF - _HEAD:
            self.forget()
            return
        half = 2 if self._memory[0] == 1 else 1
        at = (half - 1) * _HALF + _HEAD
        _LENGTH.pack_into(self._memory, at - _LENGTH.size, len(data))
        self._memory[at : at + len(data)] = data
        self._memory[0] = half

    def forget(self) -> None:
        self._memory[0] = 0

    def read(self) -> dict[str, object] | None:
        half = self._memory[0]
        if half == 0:
            return None
        at = (half - 1) * _HALF + _HEAD
        (length,) = _LENGTH.unpack_from(self._memory, at - _LENGTH.size)
        record, _ = _decode(self._memory[at : at + length].decode())
        return record if isinstance(record, dict) else None

    def close(self) -> None:
        self._memory.close()


def exit_code_of(seen: os.waitid_result) -> int:
    """As os.waitstatus_to_exitcode: the negative number of the signal that ended it."""
    return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status


def recover(last: dict[str, object], code: int | None) -> bool:
    """Writes the exit record that the dead supervisor could not write. `code`: how the job's main process ended,
    None when it had not. False when the disk does not take it now, or the home is away: it is to be tried again."""
    records = bundle.text(last, "dir") or ""
    record = last.get("end")
    if record is None and code is not None:
        record = _record_of(last, code)
    if not isinstance(record, dict):
        return True
    try:
        written = bundle.read(records, bundle.EXIT)
        if written is not None and written.get("token") == record.get("token"):
            return True
        # What the job left behind may live: whoever reads this ends it before the GPU is given again.
        left = results.left_in(records, bundle.integer(last, "uid"), bundle.integer(last, "max_result_bytes"))
        return write_end(records, {**record, **left, "swept": False})
    except HomeGone:
        return True
    except OSError:
        return False


def _record_of(last: dict[str, object], code: int) -> dict[str, object] | None:
    reason = bundle.text(last, "stop_reason")
    if reason is None and code in _UNTOLD:
        return None
    end = classify.Ending(
        exit_code=code if code >= 0 else None,
        signum=-code if code < 0 else None,
        stop_reason=reason,
        noticed=bundle.integer(last, "noticed"),
        time_limit_s=bundle.number(last, "time_limit_s"),
        max_output_bytes=bundle.integer(last, "max_output_bytes"),
    )
    return classify.exit_record(
        end, token=bundle.text(last, "token") or "", started_at=bundle.number(last, "started_at")
    )
