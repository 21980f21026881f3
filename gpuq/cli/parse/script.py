"""`gpuq submit train.sh`: a batch script, whose text is kept with the job, and the options in its own `#GPUQ` and
`#SBATCH` lines."""

from __future__ import annotations

import os
import sys

from gpuq.cli.parse.command_table import JOB
from gpuq.cli.parse.fast_parser import parse_options
from gpuq.cli.parse.options import Args, Command
from gpuq.errors import UsageError

MARK = "#GPUQ"
SLURM_MARK = "#SBATCH"
MARKS = (MARK, SLURM_MARK)
# What `gpuq.domain.batch_script` lets pass; that is only loaded for a script.
MAX_BYTES = 1024 * 1024
# Only the head of a script is searched for options.
HEAD_BYTES = 65536
# Run by bash when they say nothing else: with options in them, and (the second) without.
SHELL_SUFFIXES = frozenset({"", ".sh", ".bash", ".sbatch", ".slurm", ".job"})
_SHELL_SCRIPTS = frozenset({".sh", ".bash", ".sbatch", ".slurm"})
STDIN = "-"
_STDIN_NAME = "stdin"

_IN_SCRIPT = Command("submit", "", "", options=JOB, examples="")


class Script:
    """`text` is kept; `command` has what it is called and its arguments; `values` are the options in it; `late` tells
    of the first line with options after the first command, which is not read; `folder`: where it lies."""

    __slots__ = ("command", "folder", "late", "text", "values")

    def __init__(
        self, command: list[str], text: str, folder: str, values: dict[str, list[str]], late: str | None
    ) -> None:
        self.command = command
        self.text = text
        self.folder = folder
        self.values = values
        self.late = late

    def interpreter(self) -> list[str]:
        """What runs it, with its own argument."""
        from gpuq.domain.batch_script import interpreter

        return interpreter(self.text)

    def environment(self, env: dict[str, str]) -> dict[str, str]:
        """`env` as its interpreter needs it: Python imports what lies beside a script, and the kept
        text lies elsewhere."""
        if not any(os.path.basename(word).startswith("python") for word in " ".join(self.interpreter()).split()):
            return env
        before = env.get("PYTHONPATH")
        return {**env, "PYTHONPATH": self.folder if not before else f"{self.folder}:{before}"}


def read(word: str, rest: list[str], *, as_is: bool, directives: bool = True) -> Script | None:
    """The script that `word` names, with the arguments `rest`; None when it is a plain command.

    A script is a text file that has lines of options (which count with `directives` alone), says in its first line what
    runs it, or is called like one of a shell. `as_is` (it stands after `--`): one that can be executed and has no such
    lines is a plain command. Raises UsageError for what cannot be kept, and one that names a bad line.
    """
    # Asked before it is made absolute: that fails in a directory that is gone.
    if ("/" not in word and _on_path(word)) or not os.path.isfile(word):
        return None
    path = os.path.abspath(word)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    executable = os.access(path, os.X_OK)
    values, late, marked = _options(word, data) if directives else ({}, None, False)
    suffix = os.path.splitext(path)[1]
    named = data.startswith(b"#!")
    if not marked and ((executable and (as_is or not _is_text(data))) or not (named or suffix in _SHELL_SCRIPTS)):
        return None
    if not named and suffix not in SHELL_SUFFIXES:
        raise UsageError(
            f"{word} has {MARK} or {SLURM_MARK} lines but does not say what runs it",
            hint=f"begin it with a line like #!/usr/bin/env {'python3' if suffix == '.py' else 'PROGRAM'}",
        )
    return Script([path, *rest], _text(word, data), os.path.dirname(path), values, late)


def read_stdin(rest: list[str], *, wanted: bool, directives: bool = True) -> Script | None:
    """The script on standard input, with the arguments `rest`; None where there is nothing, unless one is `wanted`.
    Raises UsageError as `read` does."""
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not data.strip():
        if wanted:
            raise UsageError("there is no script on standard input", hint="gpuq submit - < train.sh")
        return None
    values, late, _ = _options(_STDIN_NAME, data) if directives else ({}, None, False)
    return Script([_STDIN_NAME, *rest], _text(_STDIN_NAME, data), os.getcwd(), values, late)


def stdin_has_one() -> bool:
    """Whether standard input was redirected from a file or a pipe; a terminal is asked only by `-`."""
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def _is_text(data: bytes) -> bool:
    """Of a text that is cut, the last character may be half."""
    try:
        data[:MAX_BYTES].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > MAX_BYTES - 4 and b"\0" not in data
    return b"\0" not in data


def _text(name: str, data: bytes) -> str:
    if not _is_text(data):
        raise UsageError(
            f"{name} is not UTF-8 text, and a script is kept as text",
            hint="write it in UTF-8, or submit a program that runs the file: gpuq submit -- bash FILE",
        )
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{name} is longer than 1 MiB, which is the most that is kept of a script",
            hint="put the data into a file of its own, or submit what runs the file: gpuq submit -- bash FILE",
        )
    from gpuq.domain.batch_script import complaint

    text = data.decode("utf-8")
    if (why := complaint(text)) is not None:
        raise UsageError(f"{name}: {why}", hint="mend it and submit it again")
    return text


def _on_path(word: str) -> bool:
    return any(
        os.access(os.path.join(folder, word), os.X_OK) for folder in os.environ.get("PATH", "").split(":") if folder
    )


def _options(name: str, data: bytes) -> tuple[dict[str, list[str]], str | None, bool]:
    """The options of its lines, the first such line that is too late, and whether there are any."""
    values: dict[str, list[str]] = {}
    slurm: list[tuple[int, str]] = []
    marked = False
    late = None
    head = True
    for number, line in enumerate(data[:HEAD_BYTES].decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        mark = next(
            (mark for mark in MARKS if text.startswith(mark) and text[len(mark) :][:1] in {"", " ", "\t"}), None
        )
        if mark is not None:
            if not head:
                late = f"{name} line {number}: a {mark} line after the first command is not read"
                break
            marked = True
            if mark == SLURM_MARK:
                slurm.append((number, text[len(mark) :]))
                continue
            for option, given in _line(name, number, text[len(mark) :]).items():
                values.setdefault(option, []).extend(given)
        elif text and not text.startswith("#"):
            head = False
    if slurm:
        from gpuq.cli.parse.sbatch import read as read_slurm

        below = read_slurm(name, slurm)
        variables = [*below.get("env", ()), *values.get("env", ())]
        values = {**below, **values, **({"env": variables} if variables else {})}
    return values, late, marked


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
