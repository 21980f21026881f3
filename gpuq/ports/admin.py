"""Access tokens and the diary of maintenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Tokens(Protocol):
    """Access tokens of users who reach the daemon over TCP."""

    def create(self, user: str, name: str, at: float) -> tuple[int, str]:
        """Id and secret; the secret is shown once and stored only as a hash."""

    def find(self, secret: str, at: float) -> str | None:
        """The user of a live token; notes `at` (epoch seconds) as its last use."""

    def list(self) -> Sequence[Any]:
        """Every token without its secret, revoked ones too."""

    def revoke(self, token_id: int, at: float) -> bool:
        """False when there is no live token with this id. `at`: epoch seconds."""


@dataclass(frozen=True, slots=True)
class MaintenanceRun:
    """Epoch seconds; None for never."""

    task: str
    last_start: float | None
    last_ok: float | None
    last_error: float | None
    error: str | None


class MaintenanceRuns(Protocol):
    """When each maintenance task last ran, and how it ended. `at` is in epoch seconds."""

    def note_start(self, task: str, at: float) -> None:
        """The task begins."""

    def note_ok(self, task: str, at: float) -> None:
        """The task has succeeded."""

    def note_error(self, task: str, at: float, error: str) -> None:
        """The task has failed with this text."""

    def runs(self) -> Sequence[Any]:
        """One MaintenanceRun for each task that has ever started."""
