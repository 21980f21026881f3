"""The command line as pages: a table of all commands, and a section for each one."""

from __future__ import annotations

from collections.abc import Iterator

from tables import cell, table

from gpuq.cli.parse.command_table import COMMANDS
from gpuq.cli.parse.options import Command, Option


def overview() -> str:
    return table(
        "| command | does |",
        (f"| [`gpuq {name}`](#gpuq-{anchor(name)}) | {cell(found.summary)} |" for name, found in COMMANDS.items()),
    )


def anchor(name: str) -> str:
    return name.replace(" ", "-")


def synopsis(command: Command) -> str:
    words = [f"gpuq {command.name}", "[OPTIONS]" if command.options else "", command.words]
    return " ".join(word for word in words if word)


def flags(option: Option) -> str:
    """`-g N, --gpus N`, as the line of --help has it."""
    value = "" if option.kind == "flag" else f" {option.metavar}"
    return ", ".join(f"{flag}{value}" for flag in option.flags)


def sections() -> str:
    return "\n".join(_section(command) for command in COMMANDS.values())


def _section(command: Command) -> str:
    return "\n".join(_lines(command)) + "\n"


def _lines(command: Command) -> Iterator[str]:
    yield f"## gpuq {command.name}"
    yield ""
    yield f"{command.summary[0].upper()}{command.summary[1:]}."
    yield ""
    yield f"    {synopsis(command)}"
    yield ""
    if command.options:
        rows = (f"| `{flags(option)}` | {cell(option.help)} |" for option in command.options)
        yield table("| option | means |", rows)
    yield "Examples:"
    yield ""
    yield from (f"    {line}" for line in command.examples.splitlines())
