"""Every way in which Redis can fail us, as one sentence and what to do about it."""

from __future__ import annotations

from redis import exceptions

from gpuq.errors import HotStoreUnavailable

_STILL_SAFE = "Submitted jobs are safe in the database and running jobs go on."

# By redis-py's class where it has one, and by words of the reply: redis-py strips the code in front, older servers
# wrap what a script met in a sentence of their own.
_REPLIES: tuple[tuple[type[Exception] | None, str, str, str], ...] = (
    (
        exceptions.OutOfMemoryError,
        "OOM command not allowed",
        "is out of memory and takes no writes",
        "raise its maxmemory, or remove other data from it",
    ),
    (
        exceptions.ReadOnlyError,
        "READONLY",
        "is a read-only replica",
        "point GPUQ_REDIS_URL to the primary",
    ),
    (
        None,
        "MISCONF",
        "cannot save its data to disk and therefore takes no writes",
        "free space on its disk, or switch its snapshots off with `CONFIG SET save ''`",
    ),
    (
        None,
        "NOREPLICAS",
        "has too few replicas to take writes",
        "restore its replicas, or lower min-replicas-to-write",
    ),
    (
        exceptions.MasterDownError,
        "MASTERDOWN",
        "is a replica that lost its primary",
        "point GPUQ_REDIS_URL to the primary",
    ),
    (
        exceptions.NoPermissionError,
        "NOPERM",
        "forbids this user a command that gpuq needs",
        "let the user of GPUQ_REDIS_URL run scripts, and every command on keys and channels of gpuq's namespace",
    ),
    (
        None,
        "WRONGTYPE",
        "holds a key of another program under gpuq's namespace",
        "set GPUQ_NAMESPACE to a name that nobody else uses",
    ),
    (
        None,
        "BUSY ",
        "is busy with somebody's long script",
        "it answers again when that script has ended",
    ),
)


def unavailable(error: Exception, where: str) -> HotStoreUnavailable:
    """`where` names the server for a person, without its password."""
    text = str(error) or type(error).__name__
    if isinstance(error, exceptions.BusyLoadingError):
        return _unavailable(where, "is still reading its data from disk", "wait until it has started", text)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)) or _is_auth(text):
        return _unavailable(where, "refused the credentials", "set user and password in GPUQ_REDIS_URL", text)
    for kind, words, sentence, hint in _REPLIES:
        if (kind is not None and isinstance(error, kind)) or words in text:
            return _unavailable(where, sentence, hint, text)
    if isinstance(error, exceptions.TimeoutError):
        return _unavailable(where, "did not answer in time", "is it overloaded or stopped? try `gpuq doctor`", text)
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        hint = "start it, or check GPUQ_REDIS_URL; `gpuq up` restarts its own Redis by itself"
        return _unavailable(where, "cannot be reached", hint, text)
    return _unavailable(where, "answered with an error", "look at its log; `gpuq doctor` checks its settings", text)


def _is_auth(text: str) -> bool:
    return text.startswith(("NOAUTH", "WRONGPASS", "Authentication required", "invalid username-password"))


def _unavailable(where: str, sentence: str, hint: str, detail: str) -> HotStoreUnavailable:
    return HotStoreUnavailable(f"Redis at {where} {sentence} ({detail})", hint=f"{hint}. {_STILL_SAFE}")
