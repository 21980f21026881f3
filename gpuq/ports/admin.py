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


@dataclass(frozen=True, slots=True)
class WebSession:
    """A login on the page, without its secret. Times in epoch seconds; `seen_at` is right to within ten minutes.

    `uid`: that of the user when it began. `agent`: what the browser says of itself. `token_id`: the token that was
    traded for it; None for a link of `gpuq web`.
    """

    id: int
    user: str
    uid: int | None
    scope: Scope
    created_at: float
    seen_at: float
    expires_at: float
    agent: str | None
    token_id: int | None


class WebSessions(Protocol):
    """Logins on the page, and the links that give one. Times in epoch seconds; `idle_s`: the seconds without a look
    after which a session is over."""

    def link(self, user: str, uid: int | None, scope: Scope, at: float, expires_at: float) -> str:
        """A secret that `redeem` takes once, until `expires_at`."""

    def redeem(self, secret: str, at: float, expires_at: float, agent: str | None) -> str | None:
        """The secret of the session that a link gives; None for one that is unknown, used or too old."""

    def create(
        self,
        user: str,
        uid: int | None,
        scope: Scope,
        at: float,
        expires_at: float,
        *,
        agent: str | None = None,
        token_id: int | None = None,
    ) -> str:
        """A session, for whom it is known already who he is; its secret."""

    def find(self, secret: str, at: float, idle_s: float) -> WebSession | None:
        """The live session of this secret. Notes `at` as its last use."""

    def list(self, at: float, idle_s: float) -> Sequence[WebSession]:
        """Every live session."""

    def end(self, session_id: int) -> bool:
        """Whether there was such a session; it is over now."""

    def log_out(self, secret: str) -> bool:
        """As `end`, by its secret."""

    def end_of_token(self, token_id: int) -> bool:
        """Ends the sessions that this token was traded for; whether there were any."""

    def forget(self, at: float, idle_s: float) -> bool:
        """Removes links and sessions that are over; whether there were any."""
