"""The submitter's environment, less what looks like a secret: it will be stored."""

from __future__ import annotations

import os

from gpuq.client.address import KNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# A variable's name looks like a secret when it contains one of these …
SECRET_PARTS = (
    "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY",
    "SESSION_KEY", "AUTH_KEY",
)  # fmt: skip
# … or ends with one of these. TOKENIZERS_PARALLELISM and MAX_TOKENS are no secrets.
SECRET_ENDINGS = ("TOKEN", "_KEY", "_PASS", "_PWD", "_COOKIE")
SECRET_INNER = "_TOKEN_"

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


def collect(
    environ: Mapping[str, str] | None = None, *, keep: Collection[str] = (), everything: bool = False
) -> tuple[dict[str, str], list[str], list[str]]:
    """What a job gets of its submitter's environment, and the names left out of it: first likely secrets, then
    those of values that are not UTF-8.

    `keep` names secrets to store all the same; `everything` stores them all. gpuq's own variables never go along:
    they would point the job at settings that may since have changed, or at another job's folders.
    """
    found: dict[str, str] = {}
    secrets: list[str] = []
    no_text: list[str] = []
    for name, value in (os.environ if environ is None else environ).items():
        if name not in keep and (name in _SHELL or (name.startswith("GPUQ_") and name[5:].lower() in KNOWN)):
            continue
        if not _is_text(name + value):
            # JSON carries text; bytes that are none of ours to change are better left out, and said so.
            no_text.append(name.encode("utf-8", "backslashreplace").decode())
        elif name in keep or everything or not looks_secret(name):
            found[name] = value
        else:
            secrets.append(name)
    return found, sorted(secrets), sorted(no_text)
