"""The key of a home, and what it locks: variables of jobs that nobody may read from the database.

`secrets.key` in the home has a Fernet key on each line. The first seals; each of them opens what it has sealed, so that
a new one can be put before the old. What is sealed says which key it was, by a name that is made from the key and tells
nothing of it. The key is in no copy of the database.

`cryptography` takes tens of milliseconds to import: that is for the first job that has secrets.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from gpuq.errors import SecretsUnavailable
from gpuq.ports.secrets import Sealed

FILE = "secrets.key"
# A key has 45 bytes with its line's end.
_MAX_BYTES = 64 * 1024


class SecretKeyFile:
    """gpuq.ports.secrets.SecretBox with the key file of `home`, which is read each time: somebody may have put back the
    right one."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def seal(self, secrets: Mapping[str, str]) -> Sealed:
        """See the port."""
        from cryptography.fernet import Fernet

        key = (self._keys() or [self._made()])[0]
        return Sealed(_name(key), Fernet(key).encrypt(json.dumps(dict(secrets)).encode()).decode())

    def open(self, sealed: Sealed) -> dict[str, str]:
        """See the port."""
        from cryptography.fernet import Fernet, InvalidToken

        key = next((key for key in self._keys() if _name(key) == sealed.key), None)
        if key is None:
            raise SecretsUnavailable(
                f"the secrets were encrypted with the key {sealed.key}, which is not in {self._path}",
                hint=f"put the key file back that this home had, or its lines into {self._path}",
            )
        try:
            found: dict[str, str] = json.loads(Fernet(key).decrypt(sealed.text.encode()))
        except (InvalidToken, ValueError):
            raise SecretsUnavailable(
                f"the secrets were encrypted with the key {sealed.key}, and are damaged",
                hint="submit the job again; the database was changed by somebody else",
            ) from None
        return found

    def _keys(self) -> list[bytes]:
        """Empty while there is no file. Raises SecretsUnavailable for one that others may read or have written."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        with os.fdopen(fd, "rb") as file:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode) or seen.st_uid not in (0, os.geteuid()) or seen.st_mode & 0o077:
                raise self._unusable("is not a private file of the daemon's user")
            data = file.read(_MAX_BYTES)
        keys = data.split()
        if not keys or not all(_is_key(key) for key in keys):
            raise self._unusable("holds no key, or something else beside it")
        return keys

    def _made(self) -> bytes:
        """A new key, durable; or that of another process which was faster."""
        key = _random_key()
        temporary = self._path.with_name(f".{FILE}.{os.urandom(6).hex()}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, key + b"\n")
                os.fsync(fd)
            finally:
                os.close(fd)
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                return self._keys()[0]
            finally:
                temporary.unlink()
            _sync(self._path.parent)
        except OSError as error:
            raise SecretsUnavailable(
                f"no key for secrets can be made in {self._path.parent}: {error.strerror}",
                hint="make room or give the daemon's user the right to write there, and submit again",
            ) from None
        return key

    def _unusable(self, why: str) -> SecretsUnavailable:
        return SecretsUnavailable(
            f"the key file {self._path} {why}", hint="put the right one there: owner the daemon's user, mode 0600"
        )


def _random_key() -> bytes:
    from cryptography.fernet import Fernet

    return Fernet.generate_key()


def _is_key(key: bytes) -> bool:
    from base64 import urlsafe_b64decode

    try:
        return len(urlsafe_b64decode(key)) == 32
    except ValueError:
        return False


def _name(key: bytes) -> str:
    """Eight bytes of a hash of 256 random bits: it names the key and leads nobody to it."""
    return blake2b(key, digest_size=8, person=b"gpuq key name").hexdigest()


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
