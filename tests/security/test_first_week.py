"""What the page on a server for a team shows of several users: carried out by real accounts, and compared."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from console import Command, matches, normal

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "team-server.md"
BLOCK = re.compile(r"^```text\n(?=alice\$ )(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMPT = re.compile(r"(alice|bob|admin)\$ (.*)")


def told() -> Iterator[tuple[str, Command]]:
    """Who types what, and what that prints."""
    who = None
    for row in "\n".join(BLOCK.findall(PAGE.read_text())).splitlines():
        if found := PROMPT.fullmatch(row):
            who, command = found[1], Command(found[2])
            yield who, command
        elif row.strip():
            assert who is not None
            command.expected.append(row)


class Machine:
    """The daemon and who may type at it."""

    def __init__(self, box: Any, accounts: Any) -> None:
        self.box, self.accounts = box, accounts
        self.printed: list[str] = []

    def says(self, who: str, command: Command) -> bool:
        """Whether it prints now what the page shows."""
        words = shlex.split(command.line.removeprefix("gpuq "))
        done = self.box.gpuq_as(getattr(self.accounts, who), *words, code=None)
        text = done.stdout + done.stderr
        for name in ("alice", "bob", "admin"):
            text = text.replace(getattr(self.accounts, name).name, name)
        self.printed = [normal(row) for row in text.splitlines() if row.strip()]
        return matches([normal(row) for row in command.expected], self.printed)


def test_a_week_of_two_users_and_an_administrator_is_as_the_page_shows_it(
    accounts: Any, make_root_box: Callable[..., Any]
) -> None:
    box = make_root_box(GPUQ_NODE="box1")
    box.up()
    machine = Machine(box, accounts)
    week = list(told())
    assert len(week) > 10
    for who, command in week:
        if command.reads:
            box.until(functools.partial(machine.says, who, command), f"{who}$ {command.line} prints what the page says")
        elif not machine.says(who, command):
            pytest.fail(f"{who}$ {command.line}\nshould print {command.expected}\nand prints {machine.printed}")
