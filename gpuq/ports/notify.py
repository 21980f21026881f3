"""Notify for speed, poll for truth."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """What may have changed. A listener looks for itself; a topic carries nothing."""

    COLD = "cold"  # the hot store may be empty
    QUEUE = "queue"  # something may start
    DELAYED = "delayed"  # a time at which a job is due changed
    EVENTS = "events"  # event rows were written
    CONTROL = "control"  # pause, drain, limits
    CHANGED = "changed"  # a waiting job was
    LIVE = "live"  # an active job was
    STOPS = "stops"  # an attempt was told to stop
    MISSED = "missed"  # what should be in the hot queue did not arrive there


Listener = Callable[[Topic], None]


class Notifier(Protocol):
    """Wakes those who wait for a change. A lost notification delays: every listener also polls."""

    def publish(self, topic: Topic) -> None:
        """Best effort; never raises, never blocks for long."""

    def publish_elsewhere(self, topic: Topic) -> None:
        """As `publish`, for the listeners of other processes alone."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """The listener gets every topic, on any thread, and must not block. Returns the unsubscriber."""
