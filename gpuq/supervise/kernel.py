"""The few Linux calls that Python 3.11 does not offer, or only in a costly way.

A forked process pays for every page of memory that it writes to, and Python writes to all that it looks at. So
what runs once a job takes the plain calls of the interpreter and leaves out the comfort around them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType

from gpuq.linux import PR_SET_PDEATHSIG

Handler = Callable[[int, FrameType | None], None]

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

# Of the fork server and its supervisors, as `ps -o comm` shows it; at most 15 bytes.
NAME = b"gpuq-supervisor"
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_TFD_TIMER_ABSTIME = 1


class _Itimerspec(ctypes.Structure):
    """struct itimerspec: interval, then value, each as seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


def _checked(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


# The functions inside `signal`'s wrappers, which turn every number into an enum and back.
_set_handler: Callable[[int, Handler | int], object] = getattr(signal.signal, "__wrapped__", signal.signal)
_set_mask: Callable[[int, Iterable[int]], object] = getattr(
    signal.pthread_sigmask, "__wrapped__", signal.pthread_sigmask
)
_SIG_DFL = int(signal.SIG_DFL)
_SIG_SETMASK = int(signal.SIG_SETMASK)


def on_signal(signum: int, handler: Handler) -> None:
    _set_handler(signum, handler)


def default_action(signum: int) -> None:
    _set_handler(signum, _SIG_DFL)


def block_exactly(signums: Iterable[int]) -> None:
    """Replaces the signal mask."""
    _set_mask(_SIG_SETMASK, signums)


def do_nothing(signum: int, frame: FrameType | None) -> None:
    """A handler for signals that must not end the process. Unlike an ignored signal, a handled one is back at its
    default in the program that the process becomes."""


def become_subreaper() -> None:
    """From now on every orphan among the descendants becomes a child of this process."""
    _checked(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent(signum: int) -> None:
    """Must come after a change of user or group, which clears it."""
    _checked(_prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def set_name(name: bytes) -> None:
    """What `ps -o comm` and `top` show, of this process and of those that it forks; at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name[:15])
    _checked(_prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0), "prctl(PR_SET_NAME)")


def since_boot() -> float:
    """Seconds since boot, suspended time included: neither a changed wall clock nor a suspend moves a limit."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Alarm:
    """A descriptor that becomes readable at a moment on the clock of `since_boot`.

    A timeout of poll() would stand still while the machine is suspended; this does not.
    """

    def __init__(self) -> None:
        self.fd = _checked(
            _libc.timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC),
            "timerfd_create",
        )
        self._at: float | None = None

    def set(self, at: float | None) -> None:
        """Replaces what was set before; None: never."""
        if at == self._at:
            return
        # A value of zero would switch the timer off, and a negative one is refused.
        nanoseconds = 0 if at is None else max(1, int(at * 1e9))
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        value = _Itimerspec(0, 0, min(seconds, 2**31 * 1000), rest)
        _checked(
            _libc.timerfd_settime(self.fd, _TFD_TIMER_ABSTIME, ctypes.byref(value), None),
            "timerfd_settime",
        )
        self._at = at

    def clear(self) -> None:
        """After it went off: makes the descriptor unreadable again."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return
        self._at = None
