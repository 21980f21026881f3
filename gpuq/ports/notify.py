"""Notify for speed, poll for truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# Topics: "queue" (something may start), "delayed" (a due time changed), "events" (rows were written),
# "control" (pause, drain), "changed" (a waiting job was), "cold" (the hot store may be empty), "missed" (a hint did not
# arrive).
Listener = Callable[[str], None]


class Notifier(Protocol):
    def publish(self, topic: str) -> None:
        """Best effort; never raises, never blocks for long."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """The listener gets every topic, on any thread, and must not block. Returns the unsubscriber."""
