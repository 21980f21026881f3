"""Lines that nobody would type: whatever stands in them, the answer is for a person, it comes soon, and what is refused
leaves no row. The seed is in the name of the test and of the failure; GPUQ_FUZZ_SEED gives another one."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.parse.command_table import COMMANDS
from gpuq.cli.parse.options import Command, Option

SEED = int(os.environ.get("GPUQ_FUZZ_SEED", "20261128"))
ROUNDS = 8
LINES = 100
# What ends or starts daemons, lets jobs start, or replaces the database that the test counts in.
_NOT_HERE = frozenset(
    {"up", "down", "server", "agent", "maintain", "resume", "db upgrade", "db restore", "db backup", "retry"}
)
# They wait for jobs, and no job runs here.
_WAITING_OPTIONS = frozenset({"watch", "follow", "wait"})
_WAITING = frozenset({"run", "wait"})
# Not so often: a second each.
_SLOW = frozenset({"doctor", "db current"}) | _WAITING

ODD_TEXTS = (
    "",
    " ",
    "-",
    "--",
    "0",
    "00",
    "-1",
    "1e9",
    "nan",
    "inf",
    "1" * 40,
    "9" * 5000,
    "x" * 10_000,
    "é",
    "日本語",
    "\u202egnp",
    "a\0b",
    "\udcff\udcfe",
    "\ud800",
    "\x1b[31m",
    "\r\n",
    "\t",
    "\u2028",
    "'",
    '"',
    "$(id)",
    "`id`",
    "%s%n",
    "{}",
    "../..",
    "/",
    "/dev/zero",
    "/dev/null",
    "/proc/self/mem",
    "~nobody",
    "None",
    "true",
    "²",
    "١٢",
    "1_000",
    "0x10",
    "\ufeff1",
)
KINDS: dict[str, tuple[str, ...]] = {
    "int": (
        "0",
        "1",
        "4",
        "1000000",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "+1",
        "1.5",
    ),
    "duration": (
        "90s",
        "2h",
        "1-12:00:00",
        "0",
        "99999999999999999999d",
        "1e5s",
        "1:99:99",
        "9" * 400 + "-1:00:00",
        "-5s",
    ),
    "memory": ("18G", "18000", "1K", "0", "9" * 39 + "T", "1.5.5G", "1 GiB"),
    "priority": ("high", "0", "3", "4", "CRITICAL", "urgent"),
    "list": ("1,2", ",,,", "0,0", "running", "K=V", "=V", "PATH", "7-9", "last", "A=" + "b" * 5000),
    "text": (
        "0001-01-01",
        "9999-12-31T23:59:59",
        "10000-01-01",
        "-1",
        "now",
        "now+2h",
        "tomorrow 9:00",
        "24:00",
        "1e308",
        "7d",
        "99999999999",
        "9" * 400,
        "2026-02-30",
        "0-3",
        "0-1000000000",
        "3-0",
        "0-9:0",
        "0-9%0",
        "USR1@60",
        "KILL",
        "@",
        "USR1@",
        "USR1@" + "9" * 400,
        "SIGUSR1@1e999",
        "user",
        "2026-11-22T10:00+99:00",
        "0000-00-00",
        "1 000 years ago",
    ),
}
IDS = (
    "1",
    "2",
    "last",
    "all",
    "1-3",
    "1_0",
    "7,9",
    "0",
    "-5",
    "9" * 5000,
    "1-" + "9" * 5000,
    "9" * 30 + "_1",
    "1_" + "9" * 25,
    "9223372036854775808",
    "9" * 19 + "-" + "9" * 19,
    "1,,2",
    "9-1",
)
PROGRAMS = ("true", "false", "./script.sh", "no-such-program", "\udcff", "a\0b", "x" * 300, "./", "/", ".", "~", "é")


@pytest.fixture(scope="module")
def paused(make_boxes: Callable[..., Any]) -> Any:
    """A daemon in which no job ever starts, with some jobs."""
    box = make_boxes()
    box.up()
    box.gpuq("pause", "--reason", "fuzz")
    box.submit("--", "true")
    box.submit("--array", "0-2", "--hold", "--", "true")
    return box


@pytest.fixture(scope="module")
def cli(paused: Any, make_quick_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    work = tmp_path_factory.mktemp("work")
    (work / "script.sh").write_text("#!/bin/sh\n#GPUQ -g 0\ntrue\n")
    # Times of day are read in it.
    return make_quick_cli({**paused.env, "TZ": "Europe/Berlin"}, work)


def rows(home: Path) -> int:
    with closing(sqlite3.connect(f"file:{home}/gpuq.db?mode=ro", uri=True)) as connection:
        return int(connection.execute("select count(*) from jobs").fetchone()[0])


def value(rng: random.Random, kind: str) -> str:
    """Something for an option of this kind, mostly of its kind; sometimes broken at random."""
    text = rng.choice(KINDS.get(kind, ODD_TEXTS) if rng.random() < 0.7 else ODD_TEXTS)
    if text and rng.random() < 0.25:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(ODD_TEXTS[:24]) + text[place + rng.randrange(2) :]
    return text


def line(rng: random.Random, command: Command) -> list[str]:
    words = command.name.split()
    chosen = rng.sample(command.options, rng.randint(0, min(4, len(command.options))))
    for option in chosen:
        words += _given(rng, option)
    if command.argv:
        if rng.random() < 0.5:
            words.append("--")
        words += [rng.choice(PROGRAMS), *(rng.choice(ODD_TEXTS) for _ in range(rng.randint(0, 2)))]
    else:
        most = 3 if command.most is None else command.most
        pool = IDS if "ID" in command.words else (*ODD_TEXTS, *IDS, *KINDS["text"])
        words += [rng.choice(pool) for _ in range(rng.randint(min(command.least, 1), most))]
    if rng.random() < 0.1:
        words.insert(rng.randint(1, len(words)), rng.choice(ODD_TEXTS))
    return words


def _given(rng: random.Random, option: Option) -> list[str]:
    flag = rng.choice(option.flags)
    if option.kind == "flag":
        return [flag] if option.name not in _WAITING_OPTIONS else []
    given = value(rng, option.kind)
    return [f"{flag}={given}"] if flag.startswith("--") and rng.random() < 0.3 else [flag, given]


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_line_has_an_answer_for_a_person(cli: Any, paused: Any, round_: int) -> None:
    seed = f"{SEED}/{round_}"
    rng = random.Random(seed)
    commands = [command for name, command in COMMANDS.items() if name not in _NOT_HERE]
    for number in range(LINES):
        command = rng.choice(commands)
        words = line(rng, command)
        waits = command.name in _WAITING
        if command.name in _SLOW and rng.random() < 0.6:
            continue
        before = rows(paused.home) if command.argv else 0
        said = cli(*words, seconds=1.0 if waits else 5.0)
        where = f"seed {seed}, line {number}: gpuq {words!r}"[:2000]
        assert said.code is not None or waits, f"{where}\nno answer within 5 s\n{said.err[-2000:]}"
        if command.name == "doctor" and said.code == 1:
            continue
        assert said.wrong() is None, f"{where}\n{said.wrong()}\n{said.out[-500:]}\n{said.err[-2000:]}"
        if command.argv and said.code not in {0, None}:
            assert rows(paused.home) == before, f"{where}\nrefused with {said.code}, and there are more rows"
    assert paused.gpuq("status", code=0)


@pytest.mark.parametrize(
    "words",
    [
        ["cancel", "9" * 5000],
        ["history", "9" * 5000],
        ["show", "1-" + "9" * 5000],
        ["cancel", "9" * 5000 + "_1"],
        ["run", "\udcff\udcfe", "--", "x"],
        ["history", "--since", "0001-01-01"],
        ["history", "--until", "9999-12-31T23:59:59"],
        ["submit", "-n", "a\0b", "--", "true"],
        ["submit", "--", "true", "a\0b"],
        ["submit", "-C", "a\0b", "--", "true"],
        ["submit", "--from-file", "a\0b"],
        ["show", "a\0b"],
    ],
    ids=lambda words: " ".join(words)[:30].encode("ascii", "replace").decode(),
)
def test_known_odd_lines_are_told_what_is_wrong_with_them(cli: Any, paused: Any, words: list[str]) -> None:
    before = rows(paused.home)
    said = cli(*words)
    assert said.wrong() is None, said.err
    if words[0] != "history" or not words[1].startswith("--"):
        assert said.code in {2, 3}
        assert said.err.startswith("gpuq: ")
        assert len(said.err) < 1000, "the answer need not repeat all of it"
    assert rows(paused.home) == before
