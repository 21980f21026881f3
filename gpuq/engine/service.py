"""Every loop of the daemon is a Service: started once, stopped any number of times, and one turn can be run by hand."""

from __future__ import annotations

from typing import Protocol


class Service(Protocol):
    """A part of the daemon that works on a thread of its own."""

    name: str

    def start(self) -> None:
        """Begins working on a thread of its own. Raises when it cannot (a second agent, a taken lock)."""

    def stop(self) -> None:
        """Returns when the thread has ended; a second call does nothing."""

    def run_once(self) -> None:
        """One turn, on the caller's thread; for tests and for commands that need no loop."""
