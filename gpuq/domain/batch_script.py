"""Batch scripts: text that was read at the submission, kept with the job, and run by every attempt of it."""

from __future__ import annotations

from collections.abc import Sequence

# Of UTF-8. Other formats that a job needs are files.
MAX_BYTES = 1024 * 1024
# Its file in the attempt's own folder.
KEPT_AS = "script"

_DEFAULT = ("bash",)


def interpreter(text: str) -> list[str]:
    """What the first line says runs it, as Linux reads it: a program and at most one argument. bash without one."""
    line = text.partition("\n")[0]
    words = line[2:].strip(" \t").split(None, 1) if line.startswith("#!") else []
    return [word.rstrip(" \t") for word in words] or list(_DEFAULT)


def argv(text: str, run_dir: str, command: Sequence[str]) -> list[str]:
    """What runs the script that lies in `run_dir`, with the arguments of `command`, whose first word is only what the
    submitter called it. The interpreter is named instead of the file: that needs no file system which lets programs
    run."""
    return [*interpreter(text), f"{run_dir}/{KEPT_AS}", *command[1:]]


def complaint(text: str) -> str | None:
    """Why it cannot be a script; None: it can."""
    if not text.strip():
        return "it is empty"
    first = text.partition("\n")[0]
    if first.startswith("#!") and first.endswith("\r"):
        return "its lines end with CR LF as on Windows, which no interpreter takes: `dos2unix` mends that"
    return None
