"""The manual pages, straight from the command table: gpuq.1, and gpuq-NAME.1 for every command."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from commands import anchor, synopsis
from tables import EXITS

import gpuq
from gpuq.cli.parse.command_table import COMMANDS
from gpuq.cli.parse.options import Command, Option
from gpuq.settings import Settings

ABOUT = "a durable GPU job queue for a team that shares one machine"
# Characters that every terminal can show, for those that a manual page may not have.
PLAIN = str.maketrans({"…": "...", "–": "-", "→": "->", "×": "x", "·": "*", "≤": "<="})


def roff(text: str) -> str:
    """`text` so that roff shows it as it stands."""
    text = text.translate(PLAIN).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti").replace('"', "\\(dq")
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def _day() -> str:
    """Of the page; SOURCE_DATE_EPOCH makes a build repeatable."""
    return time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))


def _head(name: str) -> str:
    return f'.TH "{roff(name).upper()}" "1" "{_day()}" "gpuq {gpuq.__version__}" "gpuq manual"'


def _option(option: Option) -> Iterator[str]:
    yield ".TP"
    value = "" if option.kind == "flag" else f" \\fI{roff(option.metavar or '')}\\fR"
    yield ", ".join(f"\\fB{roff(flag)}\\fR{value}" for flag in option.flags)
    yield roff(f"{option.help[0].upper()}{option.help[1:]}.")


def page(command: Command) -> str:
    """The manual page of one command."""

    def lines() -> Iterator[str]:
        name = f"gpuq-{anchor(command.name)}"
        yield _head(name)
        yield ".SH NAME"
        yield f"{roff(name)} \\- {roff(command.summary)}"
        yield ".SH SYNOPSIS"
        yield f".B {roff(synopsis(command))}"
        if command.options:
            yield ".SH OPTIONS"
            for option in command.options:
                yield from _option(option)
        yield ".SH EXAMPLES"
        yield ".nf"
        yield from (roff(line) for line in command.examples.splitlines())
        yield ".fi"
        yield ".SH EXIT STATUS"
        yield "See"
        yield ".BR gpuq (1)."
        yield ".SH SEE ALSO"
        yield ".BR gpuq (1)"

    return "\n".join(lines()) + "\n"


def main_page() -> str:
    """gpuq.1: the commands, the settings and the exit codes."""

    def lines() -> Iterator[str]:
        yield _head("gpuq")
        yield ".SH NAME"
        yield f"gpuq \\- {roff(ABOUT)}"
        yield ".SH SYNOPSIS"
        yield f".B {roff('gpuq COMMAND [OPTIONS] [WORDS]')}"
        yield ".SH COMMANDS"
        for command in COMMANDS.values():
            yield ".TP"
            yield f".BR gpuq\\-{roff(anchor(command.name))} (1)"
            yield roff(f"{command.summary[0].upper()}{command.summary[1:]}.")
        yield ".SH ENVIRONMENT"
        for name, field in Settings.model_fields.items():
            yield ".TP"
            yield f".B GPUQ_{name.upper()}"
            yield roff(f"{field.description}.")
        yield ".SH FILES"
        yield ".TP"
        yield roff("~/.config/gpuq/config.toml, /etc/gpuq/config.toml")
        yield roff("Settings, for root the second; names in lower case without GPUQ_.")
        yield ".SH EXIT STATUS"
        for code, text in {0: "done", **EXITS}.items():
            yield ".TP"
            yield f".B {code}"
            yield roff(f"{text[0].upper()}{text[1:]}.")
        yield ".PP"
        yield roff("run, wait, submit --wait and logs -f end with the job's own code: 128+N for a signal,")
        yield roff("124 for a time limit, 125 for a job that was cancelled or never ran.")

    return "\n".join(lines()) + "\n"


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpuq.1").write_text(main_page())
    for command in COMMANDS.values():
        (folder / f"gpuq-{anchor(command.name)}.1").write_text(page(command))
