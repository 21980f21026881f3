"""Access tokens and the diary of maintenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpuq.domain.caller import Scope


@dataclass(frozen=True, slots=True)
class Token:
    """An access token without its secret. Times in epoch seconds; `last_used_at` is right to within ten minutes.

    `uid`: that of the user when it was made; None: not known, for one of an earlier release. `expires_at` None: never.
    """

    id: int
    name: str
    user: str
    uid: int | None
    scope: Scope
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


class Tokens(Protocol):
    """Access tokens of users who reach the daemon over TCP."""

    def create(
        self,
        user: str,
        name: str,
        at: float,
        *,
        uid: int | None = None,
        scope: Scope = Scope.SUBMIT,
        expires_at: float | None = None,
    ) -> tuple[int, str]:
        """Id and secret; the secret is shown once and stored only as a hash. Times in epoch seconds."""

    def find(self, secret: str, at: float) -> Token | None:
        """The token of this secret, unless it is revoked; an expired one too. Notes `at` (epoch seconds) as its last
        use unless it has expired by then."""

    def list(self) -> Sequence[Token]:
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
