"""Access tokens and the diary of maintenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Tokens(Protocol):
    def create(self, user: str, name: str, at: float) -> tuple[int, str]:
        """Id and secret; the secret is shown once and stored only as a hash."""

    def find(self, secret: str, at: float) -> str | None:
        """The user of a live token; notes `at` (epoch seconds) as its last use."""

    def list(self) -> Sequence[Any]: ...
    def revoke(self, token_id: int, at: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class MaintenanceRun:
    """Epoch seconds; None for never."""

    task: str
    last_start: float | None
    last_ok: float | None
    last_error: float | None
    error: str | None


class MaintenanceRuns(Protocol):
    def note_start(self, task: str, at: float) -> None: ...
    def note_ok(self, task: str, at: float) -> None: ...
    def note_error(self, task: str, at: float, error: str) -> None: ...
    def runs(self) -> Sequence[Any]: ...
