"""A daemon of an earlier release refuses fields that it does not know. Some of a submission nobody wrote: they go along
by themselves, and a submission does without them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BY_THEMSELVES = ("secrets", "offered_secrets", "umask", "limits", "nice")


def without_new_fields(body: Any, complaint: str) -> tuple[Any, list[str]] | None:
    """The body for such a daemon, and the names of the secrets that stay behind; None when it complains of something
    else. `complaint`: its message."""
    if "unknown field" not in complaint or not any(repr(name) in complaint for name in BY_THEMSELVES):
        return None
    left_out: set[str] = set()

    def less(one: Any) -> Any:
        if not isinstance(one, dict):
            return one
        left_out.update(one.get("secrets") or ())
        return {name: value for name, value in one.items() if name not in BY_THEMSELVES}

    if isinstance(body, list):
        body = [less(one) for one in body]
    else:
        body = less(body)
        if isinstance(body, dict) and isinstance(body.get("jobs"), list):
            body["jobs"] = [less(one) for one in body["jobs"]]
    return body, sorted(left_out)
