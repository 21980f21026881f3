"""Variables that are kept apart: encrypted before they are stored, once for all jobs that have the same."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain.spec import JobSpec
from gpuq.engine.context import IntakeContext
from gpuq.errors import TooLarge, UsageError
from gpuq.ports.records import NewJob
from gpuq.ports.secrets import Sealed

# Bytes of the names and values of one job's.
MAX_SECRETS = 64 * 1024


class Sealing:
    """Of one request, whose jobs may share a dictionary."""

    def __init__(self, ctx: IntakeContext) -> None:
        self._ctx = ctx
        self._done: dict[int, Sealed] = {}

    def seal(self, rows: Sequence[NewJob]) -> Sequence[NewJob]:
        """The rows of one submission with what it wants to be kept apart. Raises UsageError, TooLarge and
        SecretsUnavailable."""
        secrets = rows[0].spec.secrets
        if not secrets:
            return rows
        sealed = self._done.get(id(secrets))
        if sealed is None:
            sealed = self._done[id(secrets)] = self._ctx.secrets.seal(checked(rows[0].spec))
        return [row._replace(sealed=sealed) for row in rows]


def checked(spec: JobSpec) -> dict[str, str]:
    """Raises UsageError for a name without value, TooLarge for more than MAX_SECRETS."""
    values: dict[str, str] = {}
    for name, value in spec.secrets.items():
        if value is None:
            raise UsageError(f"secrets: {name} has no value", hint="send the value, or leave the name out")
        values[name] = value
    if sum(len(text.encode("utf-8", "surrogatepass")) for pair in values.items() for text in pair) > MAX_SECRETS:
        raise TooLarge(
            f"secrets: the names and values of one job have more than {MAX_SECRETS} bytes",
            hint="leave out what it does not need (--env-drop NAME), or give it as a file that only you can read",
        )
    return values
