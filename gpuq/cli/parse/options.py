"""The vocabulary of the command table: options, commands, and the values that a command line gave them.

Standard library only, and little of it: `gpuq submit` reads the table on every call.
"""

from __future__ import annotations

from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STATES = (
    "blocked", "held", "delayed", "queued", "starting", "running", "stopping", "completed", "failed", "cancelled",
)  # fmt: skip
WAITING, ACTIVE, FINAL = STATES[:4], STATES[4:7], STATES[7:]
PRIORITIES = ("critical", "high", "normal", "low", "0", "1", "2", "3")

# What stands for an option's value in --help. A `flag` has none; `list` may be given several times.
METAVARS = {
    "text": "TEXT",
    "list": "TEXT",
    "int": "N",
    "duration": "D",
    "memory": "SIZE",
    "priority": "P",
}


# More digits than any number has that means something here; a database's integers end at 19.
LONGEST_NUMBER = 18


def require_text(value: str, what: str, hint: str = "write it in UTF-8") -> str:
    """`value`, unless it stands for bytes that are not UTF-8: then UsageError, which begins with `what`."""
    try:
        value.encode()
    except UnicodeEncodeError:
        start = f"{what}: " if what else ""
        raise UsageError(f"{start}{value!r} is not UTF-8, and a job is stored as text", hint=hint) from None
    return value


class Option:
    """`flags` as on the command line, blanks between: `-g --gpus`; `name` is the last one without dashes."""

    __slots__ = ("flags", "help", "kind", "metavar", "name")

    def __init__(self, flags: str, kind: str, text: str, metavar: str | None = None) -> None:
        self.flags = tuple(flags.split())
        self.name = self.flags[-1].lstrip("-").replace("-", "_")
        self.kind = kind
        self.help = text
        self.metavar = metavar or METAVARS.get(kind)


class Command:
    """`words`: what stands after the options, for people (`ID…`), with the least and the greatest number of them
    (None: any). `argv`: the first word ends the options, because it begins another program's command line.
    `handler`: `module:function` inside `gpuq.cli`, called with the Args, returns the exit code."""

    __slots__ = ("argv", "examples", "handler", "least", "most", "name", "options", "summary", "words")

    def __init__(
        self,
        name: str,
        handler: str,
        summary: str,
        *,
        words: str = "",
        least: int = 0,
        most: int | None = 0,
        options: Sequence[Option] = (),
        examples: str,
        argv: bool = False,
    ) -> None:
        self.name = name
        self.handler = handler
        self.summary = summary
        self.words = words
        self.least = least
        self.most = most
        self.options = tuple(options)
        self.examples = examples
        self.argv = argv

    def flags(self) -> dict[str, Option]:
        return {flag: option for option in self.options for flag in option.flags}


class Args:
    """A parsed command line. Values are kept as written and read here, so a wrong one gets the same words however
    the line was parsed. Every reader raises UsageError naming the option. `as_is`: the words stand after `--`."""

    __slots__ = ("as_is", "command", "values", "words")

    def __init__(
        self, command: Command, values: Mapping[str, list[str]], words: Sequence[str], *, as_is: bool = False
    ) -> None:
        self.as_is = as_is
        self.command = command
        self.values = dict(values)
        self.words = list(words)

    def check_words(self) -> None:
        """Raises UsageError when there are fewer or more positional words than the command takes."""
        name = self.command.name
        if len(self.words) < self.command.least:
            raise UsageError(f"{name}: {self.command.words} is missing", hint=f"see `gpuq {name} --help`")
        if self.command.most is not None and len(self.words) > self.command.most:
            extra = self.words[self.command.most]
            raise UsageError(f"{name}: {extra!r} is one word too many", hint=f"see `gpuq {name} --help`")

    def given(self, name: str) -> bool:
        return name in self.values

    def flag(self, name: str) -> bool:
        return name in self.values

    def any_of(self, names: Iterable[str]) -> bool:
        return any(name in self.values for name in names)

    def path(self, name: str) -> str | None:
        """A file's name, which may hold any bytes."""
        found = self.values.get(name)
        return found[-1] if found else None

    def text(self, name: str) -> str | None:
        """The option's value; None when it is not given. Raises UsageError for what is not valid text."""
        found = self.path(name)
        return None if found is None else require_text(found, self._shown(name))

    def many(self, name: str) -> list[str]:
        """Every value given, in order."""
        return [require_text(value, self._shown(name)) for value in self.values.get(name, ())]

    def parts(self, name: str) -> list[str]:
        """Every value given, split at commas."""
        return [part.strip() for value in self.many(name) for part in value.split(",") if part.strip()]

    def integer(self, name: str, *, least: int = 0) -> int | None:
        """The option's whole number; None when it is not given. Raises UsageError below `least`."""
        text = self.text(name)
        return None if text is None else self._integer(name, text, least)

    def integers(self, name: str) -> list[int] | None:
        """`0,2` → [0, 2]; None when not given."""
        if not self.given(name):
            return None
        parts = self.parts(name)
        if not parts:
            raise UsageError(f"{self._shown(name)}: no number is given", hint="write 0,2, or leave it out")
        return [self._integer(name, part, 0) for part in parts]

    def seconds(self, name: str) -> float | None:
        """A duration: `90s`, `2h`, `1-12:00:00`."""
        text = self.text(name)
        if text is None:
            return None
        from gpuq.domain.quantities import parse_duration

        try:
            return parse_duration(text)
        except UsageError as error:
            raise UsageError(f"{self._shown(name)}: {error.message}", hint=error.hint) from None

    def memory_mb(self, name: str) -> int | None:
        """The option's memory size in MB; None when it is not given. Raises UsageError that names the option."""
        text = self.text(name)
        if text is None:
            return None
        from gpuq.domain.quantities import parse_memory_mb

        try:
            return parse_memory_mb(text)
        except UsageError as error:
            raise UsageError(f"{self._shown(name)}: {error.message}", hint=error.hint) from None

    def priority(self, name: str = "priority") -> str | int | None:
        """A priority by name (lower case) or number; None when it is not given. Raises UsageError for any other."""
        text = self.text(name)
        if text is None:
            return None
        if text.lower() not in PRIORITIES:
            raise UsageError(f"unknown priority {text!r}", hint="use critical, high, normal or low (or 0 to 3)")
        return int(text) if text.isdigit() else text.lower()

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of `choices`, or `default` when the option is not given. Raises UsageError for any other."""
        text = self.text(name)
        if text is None:
            return default
        if text not in choices:
            raise UsageError(f"{self._shown(name)}: {text!r} is not possible", hint="use " + ", ".join(choices))
        return text

    def _integer(self, name: str, text: str, least: int) -> int:
        if not (text.isascii() and text.isdigit()):
            raise UsageError(f"{self._shown(name)}: {text!r} is not a whole number from 0 on", hint="write 0, 1, 2, …")
        if len(text) > LONGEST_NUMBER:
            raise UsageError(f"{self._shown(name)}: {text} is too large", hint="write a smaller number")
        if int(text) < least:
            raise UsageError(f"{self._shown(name)}: at least {least}, not {text}")
        return int(text)

    def _shown(self, name: str) -> str:
        return next("/".join(option.flags) for option in self.command.options if option.name == name)
