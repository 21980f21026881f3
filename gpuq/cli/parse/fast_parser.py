"""The everyday reading of a command line, in a millisecond: typer takes 80 to start.

It reads what is right. Whatever it cannot make sense of (and --help) goes to the typer application made from the
same table, which says what is wrong.
"""

from __future__ import annotations

from gpuq.cli.parse.command_table import COMMANDS, GROUPS
from gpuq.cli.parse.options import Args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuq.cli.parse.options import Command, Option


def parse(line: Sequence[str]) -> Args | None:
    """The command and its values; None when typer has to look at it."""
    if not line:
        return None
    name, rest = line[0], list(line[1:])
    if name in GROUPS and rest and f"{name} {rest[0]}" in COMMANDS:
        name = f"{name} {rest.pop(0)}"
    command = COMMANDS.get(name)
    return None if command is None else parse_options(command, rest)


def parse_options(command: Command, line: list[str]) -> Args | None:
    """Options of one command, and its words: `-g 2`, `-g2`, `--gpus 2`, `--gpus=2`, `-fw`, `--`."""
    flags = command.flags()
    values: dict[str, list[str]] = {}
    words: list[str] = []
    as_is = False
    rest = iter(line)
    for word in rest:
        if word == "--":
            as_is = not words
            words.extend(rest)
            break
        if len(word) < 2 or not word.startswith("-"):
            words.append(word)
            if command.argv:
                words.extend(rest)
                break
            continue
        read = _long(flags, word) if word.startswith("--") else _short(flags, word)
        if read is None:
            return None
        for option, value in read:
            if value is None and option.kind != "flag":
                value = next(rest, None)
                if value is None:
                    return None
            values.setdefault(option.name, []).append(value or "")
    return Args(command, values, words, as_is=as_is)


def _long(flags: dict[str, Option], word: str) -> list[tuple[Option, str | None]] | None:
    flag, equals, value = word.partition("=")
    option = flags.get(flag)
    if option is None or (equals and option.kind == "flag"):
        return None
    return [(option, value if equals else None)]


def _short(flags: dict[str, Option], word: str) -> list[tuple[Option, str | None]] | None:
    """`-fw` is two flags, `-g2` an option and its value, `-wg2` both."""
    found: list[tuple[Option, str | None]] = []
    for place in range(1, len(word)):
        option = flags.get("-" + word[place])
        if option is None:
            return None
        if option.kind != "flag":
            found.append((option, word[place + 1 :] or None))
            break
        found.append((option, None))
    return found
