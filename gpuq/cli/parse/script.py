"""`gpuq submit train.sh`: options from the script's own #GPUQ lines."""

from __future__ import annotations

import os

from gpuq.cli.parse.command_table import JOB
from gpuq.cli.parse.fast_parser import parse_options
from gpuq.cli.parse.options import Args, Command
from gpuq.errors import UsageError

MARK = "#GPUQ"
# Only the head of a file is searched; this is also enough to see that a file is no script.
HEAD_BYTES = 65536
# Run by /bin/sh when they say nothing else.
SHELL_SUFFIXES = frozenset({"", ".sh"})

_IN_SCRIPT = Command("submit", "", "", options=JOB, examples="")


class Script:
    """`argv` runs it; `values` are the options of its #GPUQ lines; `late` the number of the first #GPUQ line
    after the first command, which is not read."""

    __slots__ = ("argv", "late", "path", "values")

    def __init__(self, path: str, argv: list[str], values: dict[str, list[str]], late: int | None) -> None:
        self.path = path
        self.argv = argv
        self.values = values
        self.late = late


def read(word: str, rest: list[str], *, alone: bool) -> Script | None:
    """The script that `word` names, with the arguments `rest`; None when it is a plain command.

    A script is a file that has #GPUQ lines, or (`alone`: the whole command line is its name) one that cannot be
    executed but says in its first line what runs it. Raises UsageError naming a bad #GPUQ line.
    """
    # Asked before it is made absolute: that fails in a directory that is gone.
    if ("/" not in word and _on_path(word)) or not os.path.isfile(word):
        return None
    path = os.path.abspath(word)
    try:
        with open(path, "rb") as file:
            lines = file.read(HEAD_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    interpreter = lines[0][2:].split(None, 1) if lines and lines[0].startswith("#!") else []
    values, late, marked = _options(word, lines)
    executable = os.access(path, os.X_OK)
    if not marked and (executable or not alone or not interpreter):
        return None
    if marked and not interpreter and (suffix := os.path.splitext(path)[1]) not in SHELL_SUFFIXES:
        raise UsageError(
            f"{word} has #GPUQ lines but does not say what runs it",
            hint=f"begin it with a line like #!/usr/bin/env {'python3' if suffix == '.py' else 'PROGRAM'}",
        )
    runner = [] if executable and interpreter else [part.strip() for part in interpreter] or ["/bin/sh"]
    return Script(path, [*runner, path, *rest], values, late)


def _on_path(word: str) -> bool:
    return any(
        os.access(os.path.join(folder, word), os.X_OK) for folder in os.environ.get("PATH", "").split(":") if folder
    )


def _options(name: str, lines: list[str]) -> tuple[dict[str, list[str]], int | None, bool]:
    values: dict[str, list[str]] = {}
    marked = False
    head = True
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(MARK) and text[len(MARK) :][:1] in {"", " ", "\t"}:
            if not head:
                return values, number, marked
            marked = True
            for option, given in _line(name, number, text[len(MARK) :]).items():
                values.setdefault(option, []).extend(given)
        elif text and not text.startswith("#"):
            head = False
    return values, None, marked


def _line(name: str, number: int, text: str) -> dict[str, list[str]]:
    import shlex

    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise UsageError(f"{name} line {number}: {error}", hint="quote as in a shell") from None
    args: Args | None = parse_options(_IN_SCRIPT, words)
    if args is None or args.words:
        raise UsageError(
            f"{name} line {number}: cannot read {text.strip()!r}",
            hint="a #GPUQ line takes the options of a job: `gpuq run --help` lists them",
        )
    return args.values
