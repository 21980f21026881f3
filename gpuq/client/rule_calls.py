"""Of the daemon's HTTP API as Python calls, what administrators set: a planned drain, limits of users and groups."""

from __future__ import annotations

from gpuq.client.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class RuleCalls(Session):
    """Part of `Calls`."""

    def planned_drain(self) -> dict[str, Any]:
        return self._dict("GET", "/drain")

    def plan_drain(self, **wanted: object) -> dict[str, Any]:
        """`at`, `until`, `gpus` and `reason` as in `POST /drain`."""
        return self._dict("POST", "/drain", body=wanted, repeat=True)

    def cancel_drain(self) -> dict[str, Any]:
        return self._dict("DELETE", "/drain", repeat=True)

    def groups(self) -> list[Any]:
        return self._list("GET", "/groups")

    def limit_group(self, group: str, limit: int) -> Any:
        """`limit` 0: no limit."""
        return self.call("POST", "/groups", body={"group": group, "limit": limit}, repeat=True)

    def limits(self, *, user: str | None = None, group: str | None = None) -> list[Any]:
        return self._list("GET", "/limits", query={"user": user, "group": group})

    def set_limits(self, kind: str, name: str | None = None, **limits: object) -> list[Any]:
        """`limits` as in `POST /limits`: None removes one, "unlimited" lifts it."""
        return list(
            self.call("POST", "/limits", body={"kind": kind, **({"name": name} if name else {}), **limits}, repeat=True)
        )
