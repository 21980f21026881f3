"""What the page on a server for a team shows of several users: carried out by real accounts, and compared."""

from __future__ import annotations

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


def test_a_week_of_two_users_and_an_administrator_is_as_the_page_shows_it(
    accounts: Any, make_root_box: Callable[..., Any]
) -> None:
    box = make_root_box(GPUQ_NODE="box1")
    box.up()
    week = list(told())
    assert len(week) > 10
    for who, command in week:
        account = getattr(accounts, who)

        def printed(command: Command = command, account: Any = account) -> list[str]:
            done = box.gpuq_as(account, *shlex.split(command.line.removeprefix("gpuq ")), code=None)
            text = done.stdout + done.stderr
            for name in ("alice", "bob", "admin"):
                text = text.replace(getattr(accounts, name).name, name)
            return [row for row in text.splitlines() if row.strip()]

        expected = [normal(row) for row in command.expected]
        last: list[str] = []

        def same() -> bool:
            last[:] = printed()
            return matches(expected, [normal(row) for row in last])

        if command.reads:
            box.until(same, f"{who}$ {command.line} prints what the page says")
        elif not same():
            pytest.fail(f"{who}$ {command.line}\nshould print\n{command.expected}\nand prints\n" + "\n".join(last))
