"""Completion of the shells, in the protocol of the scripts that typer installs (`gpuq --install-completion`).

typer itself would answer in three times the time that `gpuq status` takes, at every Tab. So its question is answered
here: `_GPUQ_COMPLETE=complete_bash` with the line in `COMP_WORDS`, for zsh and fish in `_TYPER_COMPLETE_ARGS`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.cli.candidates import Candidate

VARIABLE = "_GPUQ_COMPLETE"
_SHELLS = ("bash", "zsh", "fish")

# zsh evaluates the answer, bash expands patterns in it, and other people's words are in it: of jobs, groups, users.
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,/@%+=-")


def shell() -> str | None:
    """The shell that asks, None when none does. What asks for a script goes to typer."""
    wanted, _, name = os.environ.get(VARIABLE, "").partition("_")
    return name if wanted == "complete" and name in _SHELLS else None


def answer(name: str) -> int:
    """Prints what may stand at the cursor. The exit code is 0 but for fish, which asks whether there is anything. Says
    nothing on stderr, whatever is wrong: it would stand in the middle of somebody's line."""
    from gpuq.cli.candidates import candidates

    before, typed = _bash_line() if name == "bash" else _line()
    try:
        found = [one for one in candidates(before, typed) if _SAFE.issuperset(one[0])]
    except Exception:  # noqa: BLE001 - no daemon, no right, a broken config file: nothing to offer
        found = []
    if name == "fish" and os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return 0 if found else 1
    sys.stdout.write({"bash": _bash, "zsh": _zsh, "fish": _fish}[name](found))
    return 0


def _bash_line() -> tuple[list[str], str]:
    """The words before the cursor, and what is typed of the one there. bash takes `=` for a word of its own."""
    words = _split(os.environ.get("COMP_WORDS", ""), "\n")
    at = os.environ.get("COMP_CWORD", "")
    place = int(at) if at.isdigit() else len(words)
    typed = words[place] if place < len(words) else ""
    before = words[1:place]
    if typed == "=" and before and before[-1].startswith("--"):
        return before, ""
    return [word for i, word in enumerate(before) if word != "=" or not i or before[i - 1][:2] != "--"], typed


def _line() -> tuple[list[str], str]:
    text = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(text, " ")[1:]
    if words and not text.endswith(" "):
        return words[:-1], words[-1]
    return [word for word in words if word], ""


def _split(text: str, between: str) -> list[str]:
    if not any(mark in text for mark in "'\"\\"):
        return text.split(between) if between == "\n" else text.split()
    import shlex

    try:
        return shlex.split(text)
    except ValueError:
        # A quote that is still open.
        return text.split(between)


def _about(text: str) -> str:
    """A line of words without meaning to a shell."""
    return " ".join("".join(letter if letter in _SAFE else " " for letter in text).split())[:60]


def _bash(found: list[Candidate]) -> str:
    return "".join(f"{value}\n" for value, _ in found)


def _fish(found: list[Candidate]) -> str:
    return "".join(f"{value}\t{_about(text)}\n" if text else f"{value}\n" for value, text in found)


def _zsh(found: list[Candidate]) -> str:
    if not found:
        return "_files"
    shown = "\n".join(f'"{value}":"{_about(text)}"' if text else f'"{value}"' for value, text in found)
    return f"_arguments '*: :(({shown}))'"
