"""The typer application, made from the command table: help, completion, and what is wrong with a line that
`gpuq.cli.parse.fast_parser` could not read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import typer
import typer.core

from gpuq.cli.dispatch import dispatch
from gpuq.cli.parse.command_table import COMMANDS, GROUPS
from gpuq.cli.parse.options import Args, Command, Option
from gpuq.errors import UsageError

ABOUT = "A durable GPU job queue for a team that shares one machine."
# Every command stands under one heading of `gpuq --help`, in this order.
HEADINGS = {
    "Jobs": "submit run status show why logs result wait cancel hold release top update retry requeue",
    "Queue": "pause resume drain undrain group limit dlq simulate",
    "Machine": "gpus who monitor web up down doctor",
    "History": "history report sql clean",
    "Administration": "config token db install-service contrib server agent maintain",
}

# typer brings its own copy of click since 0.26; its error classes are reached through what typer exports.
_ClickError: type[Any] = typer.BadParameter.__mro__[2]


def build() -> typer.Typer:
    """The typer application with every command of the table; made only for help and completion, which need typer."""
    app = typer.Typer(
        name="gpuq",
        help=ABOUT,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        cls=_Headed,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    groups = {name: typer.Typer(help=text, no_args_is_help=name not in COMMANDS) for name, text in GROUPS.items()}
    for command in COMMANDS.values():
        first, _, second = command.name.partition(" ")
        if second:
            _add(groups[first].command, second, command)
        elif first in groups:
            _add(groups[first].callback, None, command)
        else:
            _add(app.command, first, command)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    return app


def run(line: list[str]) -> int:
    """Parses and carries out; errors in the line leave as UsageError."""
    try:
        code = typer.main.get_command(build()).main(args=line, prog_name="gpuq", standalone_mode=False)
    except _ClickError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help())
            return 0
        raise UsageError(_one_line(error), hint=f"see `{_path(error)} --help`") from None
    return code if isinstance(code, int) else 0


class _Headed(typer.core.TyperGroup):
    """Lists its commands under HEADINGS."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for heading, names in HEADINGS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names.split()])


def _version(wanted: bool) -> None:
    if wanted:
        from gpuq import revision

        print(revision.version_line())
        raise typer.Exit


def _top(
    version: bool = typer.Option(
        False, "--version", help="print the version and stop", callback=_version, is_eager=True
    ),
) -> None:
    """What stands before the command."""


def _add(register: Callable[..., Any], name: str | None, command: Command) -> None:
    # \b keeps the lines of the examples apart.
    text = f"{command.summary[0].upper()}{command.summary[1:]}.\n\n\b\nExamples:\n" + "\n".join(
        f"  {line}" for line in command.examples.splitlines()
    )
    settings = {"allow_interspersed_args": not command.argv}
    if name is None:
        register(invoke_without_command=True, help=text)(_function(command))
    else:
        register(name, help=text, short_help=command.summary, context_settings=settings)(_function(command))


def _function(command: Command) -> Callable[..., int]:
    """A function whose signature says to typer what the table says."""

    def carry_out(**given: Any) -> int:
        context = given.pop("context")
        if context.invoked_subcommand is not None:
            return 0
        return dispatch(Args(command, _values(command, given), given.get("words") or []))

    parameters = [_parameter("context", typer.Context, inspect.Parameter.empty)]
    parameters += [_parameter(option.name, _type(option), _option(option)) for option in command.options]
    # A group takes the word after its name for the name of a command.
    if command.words or command.name not in GROUPS:
        words = typer.Argument(None, metavar=command.words or "", show_default=False, hidden=not command.words)
        parameters.append(_parameter("words", list[str], words))
    carry_out.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    carry_out.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return carry_out


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _type(option: Option) -> Any:
    # Also what may be given once only is read as a list, the last one counting: as the quick reading does.
    return bool if option.kind == "flag" else list[str]


def _option(option: Option) -> Any:
    if option.kind == "flag":
        return typer.Option(False, *option.flags, help=option.help, show_default=False)
    return typer.Option(None, *option.flags, help=option.help, metavar=option.metavar, show_default=False)


def _values(command: Command, given: Mapping[str, Any]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for option in command.options:
        value = given.get(option.name)
        if value:
            values[option.name] = [""] if option.kind == "flag" else list(value)
    return values


def _one_line(error: Any) -> str:
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _path(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context is not None else "gpuq"
