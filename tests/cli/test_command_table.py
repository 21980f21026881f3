from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import typer

from gpuq.cli import app
from gpuq.cli.__main__ import main
from gpuq.cli.parse import fast_parser, select
from gpuq.cli.parse.command_table import COMMANDS
from gpuq.cli.parse.options import Command
from gpuq.client import watch
from gpuq.domain import states
from gpuq.domain.states import JobState

PUBLIC = {
    "up": "-d --detach --listen",
    "down": "--stop-jobs",
    "server": "", "agent": "", "maintain": "",
    "submit": "-g --gpus --gpu-mem --gpu-model --gpu-ids -p --priority -n --name --group -t --time --retries --after "
    "--after-any --begin --array --hold --key --preemptible --signal --kill-grace -C --chdir --env --env-keep "
    "--env-all --wait --parsable --json --test-only --shell --from-file --no-check --ignore-directives --like",
    "run": "-g --gpus --gpu-mem --gpu-model --gpu-ids -p --priority -n --name --group -t --time --retries --after "
    "--after-any --begin --array --hold --key --preemptible --signal --kill-grace -C --chdir --env --env-keep "
    "--env-all --shell --no-check --ignore-directives",
    "status": "--me -u --user -s --state -g --group -n --name --limit -a --all -w --watch --json",
    "show": "--json", "why": "--json",
    "logs": "-f -n --attempt --all-attempts --grep --raw", "result": "-o --output",
    "wait": "--timeout",
    "cancel": "--force --grace --reason --me -u --user -s --state -g --group -n --name --yes",
    "hold": "", "release": "", "top": "",
    "update": "--priority --time", "retry": "", "requeue": "",
    "pause": "--reason", "resume": "",
    "gpus": "--json", "gpus drain": "", "gpus undrain": "",
    "group": "--json", "group limit": "",
    "drain": "--at --until --reason --json", "undrain": "",
    "limit": "--gpus --running --waiting --gpu-hours --time --json",
    "history": "--me -u --user -s --state -g --group -n --name --limit -a --all --since --until --json",
    "clean": "--older-than --me -u --user -s --state -g --group --checkpoints --dry-run -y --yes --json",
    "report": "--by --since --until --json --csv",
    "sql": "--json --csv",
    "dlq list": "--json", "dlq show": "--json", "dlq retry": "", "dlq purge": "",
    "simulate": "--gpus --nodes --order --backfill --expect --out --json",
    "db upgrade": "", "db current": "", "db backup": "", "db restore": "--leave-running", "db adopt": "",
    "db reporter": "--new-password --json",
    "config": "--json", "doctor": "--end-strays --import-strays --json",
    "who": "--json", "web": "--print --json", "monitor": "--readonly",
    "install-service": "--user --print --force", "contrib": "",
    "token create": "", "token list": "--json", "token revoke": "",
}  # fmt: skip


def typer_command(name: str) -> Any:
    found: Any = typer.main.get_command(app.build())
    for word in name.split():
        found = found.commands[word]
    return found


def test_every_command_stands_under_one_heading_of_the_help() -> None:
    headed = [name for names in app.HEADINGS.values() for name in names.split()]
    assert sorted(headed) == sorted({name.partition(" ")[0] for name in COMMANDS})


@pytest.mark.parametrize("line", [["-h"], ["submit", "-h"], ["gpus", "drain", "-h"]])
def test_a_short_flag_asks_for_help_too(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 0
    short = capsys.readouterr().out
    assert main([*line[:-1], "--help"]) == 0
    assert short == capsys.readouterr().out
    assert short.startswith("Usage: gpuq")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_command_and_option_exists(name: str) -> None:
    assert set(PUBLIC[name].split()) <= set(COMMANDS[name].flags())


def test_no_command_is_left_undocumented_here() -> None:
    assert set(COMMANDS) == set(PUBLIC)


@pytest.mark.parametrize("name", COMMANDS)
def test_typer_knows_exactly_the_options_of_the_table(name: str) -> None:
    found = {
        (param.name, tuple(param.opts), bool(param.is_flag))
        for param in typer_command(name).params
        if param.param_type_name == "option"
    }
    assert found == {(option.name, option.flags, option.kind == "flag") for option in COMMANDS[name].options}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_has_a_handler(command: Command) -> None:
    module, _, function = command.handler.partition(":")
    assert callable(getattr(importlib.import_module(f"gpuq.cli.commands.{module}"), function))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_example_is_a_line_that_the_command_reads(command: Command) -> None:
    import shlex

    for line in command.examples.splitlines():
        words = shlex.split(line, comments=True)
        words = words[words.index("gpuq") + 1 :]
        args = fast_parser.parse(words)
        assert args is not None, line
        assert args.command.name.split()[0] == command.name.split()[0]
        args.check_words()


@pytest.mark.parametrize(
    "line",
    [
        "submit -g 2 -- python train.py --lr 3",
        "submit -g2 python -c pass",
        "submit --gpus=2 --env A=1 --env B=2 --hold -p high true",
        "submit --shell 'a | b'",
        "submit -- -x",
        "status -wa --limit 5 7 9 --me",
        "status 7 --json",
        "cancel 7 9 --force --reason 'a b'",
        "gpus",
        "gpus --json",
        "gpus drain 3 --reason fan",
        "gpus undrain 0 2-3",
        "group --json",
        "group limit nightly 2",
        "limit user alice --gpus 4 --gpu-hours 100/7d",
        "drain --at 14:00 --until 2h 0 2-3",
        "logs 7 -fn 20",
        "history --since 7d -s failed,cancelled",
        "submit -g 1 -g 4 true",
    ],
)
def test_quick_reading_and_typer_agree(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    words = shlex.split(line)
    quickly = fast_parser.parse(words)
    assert quickly is not None
    seen: list[Any] = []
    monkeypatch.setattr(app, "dispatch", lambda args: seen.append(args) or 0)
    app.run(words)
    [typed] = seen
    assert (typed.command.name, typed.values, typed.words) == (
        quickly.command.name,
        quickly.values,
        quickly.words,
    )


def test_options_of_simulate_are_those_of_the_replay() -> None:
    import inspect

    from gpuq.cli.commands.replay import simulate

    names = {"json" if name == "as_json" else name for name in inspect.signature(simulate).parameters} - {"trace"}
    assert {option.name for option in COMMANDS["simulate"].options} == names


def test_the_states_that_the_command_line_writes_out_are_those_of_the_state_machine() -> None:
    # Written out there, because the state machine's enums cost every command their import.
    assert tuple(JobState) == select.STATES
    assert [set(select.WAITING), set(select.ACTIVE), set(select.FINAL)] == [states.WAITING, states.ACTIVE, states.FINAL]
    assert watch.FINAL == states.FINAL


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Administration:" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_its_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app.run([*name.split(), "--help"])
    shown = capsys.readouterr().out
    for line in COMMANDS[name].examples.splitlines():
        assert line in shown
    for option in COMMANDS[name].options:
        assert re.search(rf"(^|[\s,]){re.escape(option.flags[-1])}\b", shown, re.MULTILINE)


def test_help_of_update_names_no_defaults_of_a_new_job() -> None:
    assert not [option.name for option in COMMANDS["update"].options if "default" in option.help]
