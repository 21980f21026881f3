"""What may stand at one place of a command line: the words of the command table, and what the daemon knows.

A daemon that does not answer within a second has nothing to offer.
"""

from __future__ import annotations

import signal

from gpuq.cli.parse.command_table import COMMANDS, GROUPS
from gpuq.cli.parse.options import ACTIVE, FINAL, STATES, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from gpuq.cli.parse.options import Command, Option
    from gpuq.client.calls import Calls

    Candidate = tuple[str, str]

PATIENCE_S = 1.0
# The newest; who looks for an older one knows its number.
_JOBS = 100

# The jobs that a command can do something with.
_STATES_FOR = {
    "cancel": WAITING + ACTIVE, "wait": WAITING + ACTIVE, "hold": ("blocked", "delayed", "queued"),
    "release": ("held",), "top": WAITING, "update": WAITING, "retry": ("failed", "cancelled"), "requeue": ("running",),
    "why": WAITING + ACTIVE, "history": FINAL, "clean": FINAL, "dlq show": ("failed",), "dlq retry": ("failed",),
    "dlq purge": ("failed",), "status": (), "show": (), "logs": (),
}  # fmt: skip
_FIXED = {
    "priority": ("critical", "high", "normal", "low"),
    "state": STATES,
    "order": ("aged", "fifo"),
    "backfill": ("easy", "greedy", "none"),
    "expect": ("history", "exact"),
    "scope": ("read", "submit", "admin"),
    "by": ("user", "group", "gpu", "day", "job"),
}
_REPORTS = ("usage", "waits", "failures", "utilization", "disk")


def candidates(before: list[str], typed: str) -> list[Candidate]:
    """(word, what it is) of all that may stand after `before`, the words behind `gpuq`, and begin as `typed` does.
    Empty: nothing is known, or a file's name belongs there. Raises GpuqError and OSError."""
    if not before:
        return _beginning(typed, [*_commands(""), ("--help", "help"), ("--version", "version and commit")])
    first, rest = before[0], before[1:]
    command = COMMANDS.get(first)
    if first in GROUPS:
        if not rest and not typed.startswith("-"):
            return _beginning(typed, _commands(first))
        if rest and f"{first} {rest[0]}" in COMMANDS:
            command, rest = COMMANDS[f"{first} {rest[0]}"], rest[1:]
    return [] if command is None else _of_command(command, rest, typed)


def _of_command(command: Command, rest: list[str], typed: str) -> list[Candidate]:
    flags = command.flags()
    words: list[str] = []
    waiting: Option | None = None
    for word in rest:
        if waiting is not None:
            waiting = None
        elif word == "--":
            return []
        elif len(word) > 1 and word.startswith("-"):
            option = flags.get(word)
            waiting = option if option is not None and option.kind != "flag" else None
        else:
            words.append(word)
            if command.argv:
                return []
    if waiting is not None:
        return _listed(typed, lambda: _values(command, waiting))
    flag, equals, value = typed.partition("=")
    if equals and flag in flags:
        return [(f"{flag}={found}", text) for found, text in _listed(value, lambda: _values(command, flags[flag]))]
    if typed.startswith("-"):
        return _beginning(typed, [*((flag, option.help) for flag, option in flags.items()), ("--help", "help")])
    return _listed(typed, lambda: _words(command, words))


def _listed(typed: str, find: Any) -> list[Candidate]:
    """Also behind commas: `7,9`."""
    done, comma, last = typed.rpartition(",")
    taken = set(done.split(","))
    return [(f"{done}{comma}{word}", text) for word, text in _beginning(last, find()) if word not in taken]


def _beginning(typed: str, found: Iterable[Candidate]) -> list[Candidate]:
    return [(word, text) for word, text in found if word.startswith(typed)]


def _commands(group: str) -> list[Candidate]:
    if group:
        names = [name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{group} ")]
        return [(name, COMMANDS[f"{group} {name}"].summary) for name in names]
    plain = [(name, command.summary) for name, command in COMMANDS.items() if " " not in name and name not in GROUPS]
    return [*plain, *GROUPS.items()]


def _values(command: Command, option: Option) -> list[Candidate]:
    """What may stand behind an option."""
    name = option.name
    if name in _FIXED:
        return [(word, "") for word in _FIXED[name]]
    if name in {"after", "after_any", "like"}:
        return _jobs(())
    if name == "user":
        return _of_jobs("user")
    if name == "group":
        return _groups()
    return _gpus() if name == "gpu_ids" else []


def _words(command: Command, given: list[str]) -> list[Candidate]:
    """What may stand as a word of its own."""
    name = command.name
    if name in _STATES_FOR and (command.most is None or not given):
        taken = set(given)
        return [one for one in _jobs(_STATES_FOR[name]) if one[0] not in taken]
    if name in {"gpus drain", "gpus undrain"}:
        return _gpus()
    if name == "group limit" and not given:
        return _groups()
    if name == "report" and not given:
        return [(word, "") for word in _REPORTS]
    return []


def _ask() -> Calls:
    from gpuq.client.calls import Calls

    # Before the first question, because to connect may take for ever, too.
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    return Calls(direct=False)


def _too_late(number: int, frame: object) -> None:
    raise TimeoutError


def _newest(states: tuple[str, ...]) -> list[Any]:
    found = _ask().jobs(state=",".join(states) or None, newest_first="true", limit=_JOBS)
    return sorted(found, key=lambda job: -int(job["id"]))


def _jobs(states: tuple[str, ...]) -> list[Candidate]:
    return [(str(job["id"]), f"{job['state']} {job['name']} of {job['user']}") for job in _newest(states)]


def _of_jobs(field: str) -> list[Candidate]:
    return [(name, "") for name in sorted({job[field] for job in _newest(()) if job[field]})]


def _groups() -> list[Candidate]:
    return [(group["group"], f"{group['running']} running, {group['waiting']} waiting") for group in _ask().groups()]


def _gpus() -> list[Candidate]:
    return [(str(gpu["index"]), f"{gpu['state']} {gpu['model']}") for gpu in _ask().gpus()]
