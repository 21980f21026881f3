"""When is an attempt dead? Only when everything that could know says so: pure, from what was looked at.

Its folders may have been removed and its home be away, so no single sign decides. What lives under a supervisor is left
to that one, which knows the end or will; what lives without one is left over from a dead attempt, to be ended; what
cannot be seen is waited for, with its GPUs held.

| supervisor or lock | anything of the job | verdict    |
|--------------------|---------------------|------------|
| lives              | whatever            | supervised |
| unseen             | whatever            | in doubt   |
| gone or untold     | lives               | left over  |
| gone or untold     | unseen              | in doubt   |
| gone or untold     | gone or untold      | dead       |
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum


class Sign(StrEnum):
    """What one look tells. `UNTOLD`: nobody has told what to look for. `UNSEEN`: it could not be seen, or not whose it
    is."""

    LIVES = "lives"
    GONE = "gone"
    UNTOLD = "untold"
    UNSEEN = "unseen"


class Verdict(StrEnum):
    """See the table above."""

    SUPERVISED = "supervised"
    LEFT_OVER = "left over"
    IN_DOUBT = "in doubt"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one attempt, at one moment. `lock`: lives when it is held. `supervisor`: by process id and start time, or by
    the lock that a process has open; one that died and whose fork server has still to say how its job ended lives.
    `main`: the job's main process, by id and start time. `session`: its session. `group`: the control group of a dead
    supervisor. `marked`: processes with the attempt's mark in their environment, and what descends from them.
    `family`: what was seen to descend from its supervisor, by id and start time. `pids`: of what lives and of what is
    unseen."""

    lock: Sign
    supervisor: Sign
    main: Sign = Sign.UNTOLD
    session: Sign = Sign.UNTOLD
    group: Sign = Sign.UNTOLD
    marked: Sign = Sign.GONE
    family: Sign = Sign.UNTOLD
    pids: tuple[int, ...] = ()


_SUPERVISION = ("lock", "supervisor")
_NAMES = {
    "lock": "its lock",
    "supervisor": "its supervisor",
    "main": "its main process",
    "session": "its session",
    "group": "its control group",
    "marked": "the processes with its mark",
    "family": "what was seen to descend from it",
}


def judge(seen: Evidence) -> Verdict:
    """The table above."""
    supervision = {seen.lock, seen.supervisor}
    others = {sign for name, sign in signs_of(seen).items() if name not in _SUPERVISION}
    if Sign.LIVES in supervision:
        return Verdict.SUPERVISED
    if not is_forsaken(seen):
        return Verdict.IN_DOUBT
    if Sign.LIVES in others:
        return Verdict.LEFT_OVER
    return Verdict.IN_DOUBT if Sign.UNSEEN in others else Verdict.DEAD


def is_forsaken(seen: Evidence) -> bool:
    """Whether it is proved that nobody supervises it any more: what is left of it, if anything, may be ended."""
    return not {seen.lock, seen.supervisor} & {Sign.LIVES, Sign.UNSEEN}


def doubt(seen: Evidence) -> str:
    """The sentence for people: what still lives, or cannot be seen, so that the attempt is not taken for dead. Empty
    for one that is dead."""
    signs = signs_of(seen)
    parts = [f"{_NAMES[name]} still lives" for name, sign in signs.items() if sign is Sign.LIVES]
    parts += [f"{_NAMES[name]} cannot be told" for name, sign in signs.items() if sign is Sign.UNSEEN]
    if not parts:
        return ""
    who = f" (pid {', '.join(map(str, seen.pids))})" if seen.pids else ""
    return " and ".join(parts) + who


def signs_of(seen: Evidence) -> dict[str, Sign]:
    """By name of what was looked at."""
    return {field.name: getattr(seen, field.name) for field in fields(seen) if field.name != "pids"}
