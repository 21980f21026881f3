"""The README's tables, made from the same data that the code runs on."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gpuq import errors
from gpuq.cli.commands import COMMANDS
from gpuq.domain import outcome, reasons, states
from gpuq.settings import Settings

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: str, rows: Iterable[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows]) + "\n"


def state_table() -> str:
    def next_of(state: states.JobState) -> str:
        return ", ".join(f"`{target}`" for target in states.TRANSITIONS[state]) or "–"

    return table(
        "| state | the job | may become |",
        (f"| `{state}` | {text} | {next_of(state)} |" for state, text in states.SENTENCES.items()),
    )


def outcome_table() -> str:
    return table(
        "| outcome | means | uses a retry |",
        (
            f"| `{found}` | {text} | {'yes' if found in outcome.USES_RETRY else 'no'} |"
            for found, text in outcome.SENTENCES.items()
        ),
    )


def reason_table() -> str:
    return table("| reason | means |", (f"| `{code}` | {text} |" for code, text in reasons.SENTENCES.items()))


def command_table() -> str:
    def rows() -> Iterator[str]:
        for command in COMMANDS.values():
            options = " ".join(f"`{option.flags[-1]}`" for option in command.options)
            yield f"| `gpuq {command.name}` | {command.summary} | {options} |"

    return table("| command | does | options |", rows())


# Defaults that depend on the machine or the user are told in words.
DERIVED = {
    "home": "`~/.local/share/gpuq` (root: `/var/lib/gpuq`)",
    "database_url": "`sqlite:///$GPUQ_HOME/gpuq.db`",
    "server": "`unix://$GPUQ_HOME/gpuq.sock`",
    "node": "the host's name",
}


def settings_table() -> str:
    def rows() -> Iterator[str]:
        for name, field in Settings.model_fields.items():
            default = DERIVED.get(name, f"`{field.default}`" if field.default not in (None, "") else "unset")
            text = (field.description or "").replace("|", "\\|")
            yield f"| `GPUQ_{name.upper()}` | {default} | {text} |"

    return table("| variable | default | meaning |", rows())


def error_table() -> str:
    def walk(kind: type[errors.GpuqError]) -> Iterator[type[errors.GpuqError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from walk(child)

    return table(
        "| code | HTTP | exit code |",
        (f"| `{kind.code}` | {kind.http_status} | {kind.exit_code} |" for kind in walk(errors.GpuqError)),
    )


TABLES: dict[str, Callable[[], str]] = {
    "states": state_table,
    "outcomes": outcome_table,
    "reasons": reason_table,
    "commands": command_table,
    "settings": settings_table,
    "errors": error_table,
}


def filled(text: str) -> str:
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def main() -> int:
    text = README.read_text()
    new = filled(text)
    if "--check" in sys.argv[1:]:
        return int(text != new)
    README.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
