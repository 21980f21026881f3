"""Time as an argument."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The time, given to whatever needs it, so that tests decide what time it is."""

    def now(self) -> float:
        """Epoch seconds, rounded to milliseconds."""

    def monotonic(self) -> float:
        """Seconds that never go back, also across a suspend where the system can say so."""
