"""What a job takes over from its submitter: variables, apart from them likely secrets, umask, limits and niceness."""

from __future__ import annotations

import os

from gpuq.client.address import KNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

# A variable's name looks like a secret when it contains one of these …
SECRET_PARTS = (
    "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY",
    "SESSION_KEY", "AUTH_KEY",
)  # fmt: skip
# … or ends with one of these. TOKENIZERS_PARALLELISM and MAX_TOKENS are no secrets.
SECRET_ENDINGS = ("TOKEN", "_KEY", "_PASS", "_PWD", "_COOKIE")
SECRET_INNER = "_TOKEN_"

# Of an environment that is not wanted, what hardly any program does without.
LEAST = frozenset(("HOME", "USER", "PATH", "LANG"))

# Of a job that says nothing.
_UMASK = 0o022
# As /proc/self/limits has them: to read that costs half of what it costs to load the module `resource`.
_LIMITS = {
    b"Max core file size": "core", b"Max locked memory": "memlock", b"Max open files": "nofile",
    b"Max stack size": "stack", b"Max address space": "as", b"Max cpu time": "cpu", b"Max data size": "data",
    b"Max file size": "fsize",
}  # fmt: skip
# These always go along, others only if somebody has set them.
_ALWAYS = frozenset(("core", "memlock", "nofile", "stack"))

# The shell's own, which would be wrong in another process.
_SHELL = frozenset({"_", "SHLVL", "OLDPWD", "PWD"})


def _is_text(value: str) -> bool:
    """False for what stands for bytes that are not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def looks_secret(name: str) -> bool:
    """Whether a variable of that name probably holds a secret."""
    upper = name.upper()
    return upper.endswith(SECRET_ENDINGS) or SECRET_INNER in upper or any(part in upper for part in SECRET_PARTS)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether the name is one of these, or fits one with `*`, `?` or `[…]` in it."""
    for pattern in patterns:
        if name == pattern:
            return True
        if not pattern.isalnum() and any(sign in pattern for sign in "*?["):
            from fnmatch import fnmatchcase

            if fnmatchcase(name, pattern):
                return True
    return False


class Rules:
    """Which variables go along, and which of them apart.

    `keep`: names that go as they are. `site_keep`, `site_secret`: names or patterns that the installation keeps as they
    are, or holds for secrets. `drop`: names or patterns that stay behind. `none`: everything stays behind that is
    not kept, `least` excepted. `everything`: nothing is a secret.
    """

    __slots__ = ("drop", "everything", "keep", "least", "none", "site_keep", "site_secret")

    def __init__(
        self,
        *,
        keep: Collection[str] = (),
        site_keep: Collection[str] = (),
        site_secret: Collection[str] = (),
        drop: Collection[str] = (),
        none: bool = False,
        least: Collection[str] = LEAST,
        everything: bool = False,
    ) -> None:
        self.keep = keep
        self.site_keep = site_keep
        self.site_secret = site_secret
        self.drop = drop
        self.none = none
        self.least = least
        self.everything = everything

    def is_secret(self, name: str) -> bool:
        """Whether it is one to be kept apart."""
        if self.everything or name in self.keep or (self.site_keep and matches(name, self.site_keep)):
            return False
        return looks_secret(name) or bool(self.site_secret and matches(name, self.site_secret))

    def goes_along(self, name: str) -> bool:
        """gpuq's own variables never do: they would point the job at settings that may since have changed, or at
        another job's folders."""
        if name in self.keep:
            return True
        if name in _SHELL or (name.startswith("GPUQ_") and name[5:].lower() in KNOWN):
            return False
        if self.drop and matches(name, self.drop):
            return False
        return not self.none or name in self.least or bool(self.site_keep and matches(name, self.site_keep))


def collect(
    rules: Rules | None = None, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What a job gets of its submitter's environment: variables, secrets, and the names left out because their values
    are not UTF-8."""
    rules = rules or Rules()
    found: dict[str, str] = {}
    secrets: dict[str, str] = {}
    no_text: list[str] = []
    for name, value in (os.environ if environ is None else environ).items():
        if not rules.goes_along(name):
            continue
        if not _is_text(name + value):
            # JSON carries text; bytes that are none of ours to change are better left out, and said so.
            no_text.append(name.encode("utf-8", "backslashreplace").decode())
        elif rules.is_secret(name):
            secrets[name] = value
        else:
            found[name] = value
    return found, secrets, sorted(no_text)


def surroundings() -> dict[str, Any]:
    """Fields of a submission: soft limits (-1: none), umask and niceness of this process, these two where they are not
    as they would be anyhow."""
    found: dict[str, Any] = {"limits": soft_limits(_of_this_process("limits"))}
    # Other threads may be making files, so it is asked for and not set.
    umask = _of_this_process("status").partition(b"\nUmask:")[2].split(maxsplit=1)
    if umask and int(umask[0], 8) != _UMASK:
        found["umask"] = int(umask[0], 8) & 0o777
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice > 0:
        found["nice"] = nice
    return found


def soft_limits(table: bytes) -> dict[str, int]:
    """By name, from the text of /proc/PID/limits."""
    found: dict[str, int] = {}
    for line in table.splitlines():
        name, soft = _LIMITS.get(line[:26].strip()), line[26:47].strip()
        if name is not None and (soft != b"unlimited" or name in _ALWAYS):
            found[name] = -1 if soft == b"unlimited" else int(soft)
    return found


def _of_this_process(name: str) -> bytes:
    try:
        with open(f"/proc/self/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""
