"""All that can wake a supervisor, in one wait: signals, the control FIFO, one alarm, and the answer of the exec."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType

from gpuq.supervise import bundle, kernel

_DRAIN_BYTES = 4096
# A job that writes into its own FIFO without end keeps nobody from the rest of the work.
_MOST_PARTS = 16
# SIGCHLD has a handler because only a handled signal reaches the wakeup descriptor.
_SIGCHLD, _SIGTERM, _SIGINT = int(signal.SIGCHLD), int(signal.SIGTERM), int(signal.SIGINT)


class Events:
    """Takes over the signal handling of the process. `told_to_stop`: it got SIGTERM or SIGINT itself."""

    def __init__(self, run_dir: str) -> None:
        # For reading and writing, so that it never ends when a writer leaves.
        self.control = os.open(
            os.path.join(run_dir, bundle.CONTROL), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        )
        self.told_to_stop = False
        self._told = b""
        self._alarm: kernel.Alarm | None = None
        self._wake, self._wake_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        kernel.on_signal(_SIGCHLD, kernel.do_nothing)
        kernel.on_signal(_SIGTERM, self._on_sigterm)
        kernel.on_signal(_SIGINT, self._on_sigterm)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self.control, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def close(self) -> None:
        """Gives the signals back their default, except SIGCHLD, which goes on to be handled."""
        signal.set_wakeup_fd(-1)
        kernel.default_action(_SIGTERM)
        kernel.default_action(_SIGINT)
        for fd in (self.control, self._wake, self._wake_end):
            os.close(fd)
        if self._alarm is not None:
            os.close(self._alarm.fd)

    def watch(self, fd: int, *, for_hangup_only: bool = False) -> None:
        self._poll.register(fd, 0 if for_hangup_only else select.POLLIN)

    def forget(self, fd: int) -> None:
        self._poll.unregister(fd)

    def wait(self, until: float | None, at_most_s: float | None = None) -> set[int]:
        """The descriptors that woke it; `until` on the clock since boot, None: as long as it takes."""
        if self._alarm is not None:
            self._alarm.set(until)
        elif until is not None:
            # Made when first needed: most jobs end without one.
            self._alarm = kernel.Alarm()
            self._poll.register(self._alarm.fd, select.POLLIN)
            self._alarm.set(until)
        ready = {fd for fd, _ in self._poll.poll(None if at_most_s is None else at_most_s * 1000)}
        if self._wake in ready:
            _drain(self._wake)
        if self.control in ready:
            self._told = self._told[-_DRAIN_BYTES:] + _drain(self.control)
        if self._alarm is not None and self._alarm.fd in ready:
            self._alarm.clear()
        return ready

    def lines(self) -> list[bytes]:
        """What stood in the FIFO since the last time, without empty lines, which are nudges. One that is not whole yet
        comes later."""
        *lines, self._told = self._told.split(b"\n")
        return [line for line in lines if line]

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        self.told_to_stop = True


def _drain(fd: int) -> bytes:
    parts: list[bytes] = []
    try:
        while len(parts) < _MOST_PARTS and (part := os.read(fd, _DRAIN_BYTES)):
            parts.append(part)
            if len(part) < _DRAIN_BYTES:
                break
    except BlockingIOError:
        pass
    return b"".join(parts)
