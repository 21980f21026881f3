"""An error answer back into the exception that the daemon raised."""

from __future__ import annotations

import json

from gpuq.errors import Forbidden, GpuqError, NotFound, Refused, Unauthenticated, Unavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# For answers whose code this release does not know: by HTTP status.
_BY_STATUS: dict[int, type[GpuqError]] = {
    400: UsageError,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Refused,
    413: Refused,
    422: UsageError,
    503: Unavailable,
}


def _tree(root: type[GpuqError]) -> dict[str, type[GpuqError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found = {**_tree(child), **found}
    return found


def from_error(error: Mapping[str, object]) -> GpuqError:
    """From the `error` of one of many items."""
    hint = error.get("hint")
    kind = _tree(GpuqError).get(str(error["code"]), GpuqError)
    return kind(str(error["message"]), hint=hint if isinstance(hint, str) else None)


def from_reply(status: int, body: bytes) -> GpuqError:
    """From `{"error": {"code", "message", "hint"}}`; anything else is named by its HTTP status."""
    try:
        error = json.loads(body)["error"]
        code, message, hint = str(error["code"]), str(error["message"]), error.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        code, hint = "", None
        message = f"the daemon answered HTTP {status}: {body[:200].decode(errors='replace').strip()}"
    kind = _tree(GpuqError).get(code) or _BY_STATUS.get(status, GpuqError)
    return kind(message, hint=hint if isinstance(hint, str) else None)
