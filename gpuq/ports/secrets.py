"""Variables of jobs that nobody may read from the database: encrypted at submission, read at the launch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Sealed(NamedTuple):
    """Encrypted variables. `key`: the name of the key that opens them, which tells nothing of it."""

    key: str
    text: str


class SecretBox(Protocol):
    """Seals and opens, any thread. Nothing that it raises quotes a secret or a key."""

    def seal(self, secrets: Mapping[str, str]) -> Sealed:
        """Variables by name. The first call in the life of a home makes its key. Raises SecretsUnavailable when there
        is a key and it cannot be used, or when none can be made."""

    def open(self, sealed: Sealed) -> dict[str, str]:
        """What was sealed. Raises SecretsUnavailable without the key that it was sealed with."""
