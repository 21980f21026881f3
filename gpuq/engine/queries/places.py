"""Whether a directory and a program are there for a job, asked as the user that it would run as.

For clients on other machines, who cannot look themselves. A path of a user's may lead anywhere, to a file server that
does not answer for instance: so a process of that user's looks, nobody waits for it long, and only a few look at once.
"""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Any

from gpuq.domain.caller import Caller
from gpuq.engine.access import require_account
from gpuq.engine.accounts import Account
from gpuq.engine.context import QueryContext

_PATIENCE_S = 5.0
_AT_ONCE = 4
_looking = threading.BoundedSemaphore(_AT_ONCE)
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_NO_DIRECTORY, _NO_ENTRY, _NO_PROGRAM, _NOT_EXECUTABLE = 3, 4, 5, 6
# $1: the directory, $2: the program, $3: the folders to look for it in.
_LOOK = f"""
[ -d "$1" ] || exit {_NO_DIRECTORY}
cd -- "$1" 2>/dev/null || exit {_NO_ENTRY}
case "$2" in
*/*)
    [ -f "$2" ] || exit {_NO_PROGRAM}
    [ -x "$2" ] || exit {_NOT_EXECUTABLE}
    exit 0 ;;
esac
set -f
IFS=:
for folder in $3; do
    [ -f "${{folder:-.}}/$2" ] && [ -x "${{folder:-.}}/$2" ] && exit 0
done
exit {_NO_PROGRAM}
"""


def complaint(ctx: QueryContext, caller: Caller, cwd: str, program: str, path: str | None) -> str | None:
    """What is wrong, a sentence for people; None when all is well, or when it cannot be told now. `cwd` is absolute,
    and `path` the job's PATH, None for the default. Raises Forbidden without an account."""
    require_account(ctx.accounts, caller)
    account = ctx.accounts.of(caller.user) if ctx.accounts.apart else None
    if ctx.accounts.apart and account is None:
        return None
    sentence = _SENTENCES.get(_look(account, [cwd, program, path or _DEFAULT_PATH]))
    return None if sentence is None else sentence.format(cwd=cwd, program=program, node=ctx.node)


_SENTENCES = {
    _NO_DIRECTORY: "on {node} there is no directory {cwd}, or you may not look at it",
    _NO_ENTRY: "on {node} you may not enter the directory {cwd}",
    _NO_PROGRAM: "on {node} there is no program {program!r}",
    _NOT_EXECUTABLE: "on {node} {program} is not executable",
}


def _look(account: Account | None, words: list[str]) -> int:
    """The exit code; 0 also when nobody can tell."""
    identity = {} if account is None else _identity(account)
    if not _looking.acquire(timeout=_PATIENCE_S):
        return 0
    try:
        return _exit_code(words, identity)
    except (OSError, subprocess.SubprocessError):
        return 0
    finally:
        _looking.release()


def _exit_code(words: list[str], identity: dict[str, Any]) -> int:
    looking = subprocess.Popen(
        ["/bin/sh", "-c", _LOOK, "sh", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
        **identity,
    )
    try:
        return looking.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        # One that hangs in the kernel goes when that lets it.
        looking.kill()
        return 0


def _identity(account: Account) -> dict[str, Any]:
    groups = os.getgrouplist(account.name, account.gid)
    return {"user": account.uid, "group": account.gid, "extra_groups": groups}
