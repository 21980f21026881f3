"""The `#SBATCH` lines of a batch script, as options of `gpuq submit`.

An option that has no meaning here is refused by name, all of a script's at once: a job that quietly runs other than it
says is worse than one that is refused. docs/howto/slurm.md has the table for people; a test compares the two.
"""

from __future__ import annotations

import re
import signal

from gpuq.cli.parse.command_table import JOB
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # What it says in gpuq's own options: names and values.
    Meaning = dict[str, str]

MARK = "#SBATCH"

_OURS = frozenset(option.name for option in JOB)
_NOTICE_S = 60
_SPANS = {"second": "s", "minute": "m", "hour": "h", "day": "d", "week": "w"}


class _Refused(Exception):
    """Its text says what to do."""


def _same(name: str) -> Callable[[str], Meaning]:
    return lambda value: {name: value}


def _if_known(name: str) -> Callable[[str], Meaning]:
    """For what this release may not count."""

    def meaning(value: str) -> Meaning:
        if name not in _OURS:
            raise _Refused("nothing here counts it; take the line out")
        return {name: value}

    return meaning


def _only(wanted: str, instead: str) -> Callable[[str], Meaning]:
    def meaning(value: str) -> Meaning:
        if value not in {wanted, f"{wanted}-{wanted}"}:
            raise _Refused(instead)
        return {}

    return meaning


def _no(instead: str) -> Callable[[str], Meaning]:
    def meaning(value: str) -> Meaning:
        raise _Refused(instead)

    return meaning


def _nothing(value: str) -> Meaning:
    return {}


def _gpus(value: str) -> Meaning:
    """`2`, `a100:2`, `a100`."""
    model, colon, count = value.rpartition(":")
    if not colon and not value.isdigit():
        model, count = value, "1"
    if not (count.isascii() and count.isdigit()) or ":" in model or "," in value:
        raise _Refused("write a number of GPUs, or MODEL:NUMBER")
    return {"gpus": count, **({"gpu_model": model} if model else {})}


def _gres(value: str) -> Meaning:
    if value.lower() == "none":
        return {"gpus": "0"}
    kind, _, rest = value.removeprefix("gres/").removeprefix("gres:").replace("=", ":").partition(":")
    if kind != "gpu" or "," in value:
        raise _Refused("only GPUs are given here: --gres=gpu:N")
    return _gpus(rest or "1")


def _time(value: str) -> Meaning:
    """`minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes[:seconds]`."""
    if value.upper() in {"0", "UNLIMITED", "INFINITE"}:
        return {}
    match = re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", value, re.ASCII)
    if match is None:
        raise _Refused("write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS")
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:
        seconds = ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    elif third is not None:
        seconds = ((first or 0) * 60 + (second or 0)) * 60 + third
    else:
        seconds = (first or 0) * 60 + (second or 0)
    return {"time": f"{seconds}s"} if seconds else {}


def _dependency(value: str) -> Meaning:
    found: dict[str, list[str]] = {}
    for part in value.split(","):
        kind, *ids = part.split(":")
        name = {"afterok": "after", "afterany": "after_any"}.get(kind)
        if name is None or not ids or "?" in value:
            raise _Refused("write afterok:ID or afterany:ID, several with commas")
        found.setdefault(name, []).extend(ids)
    return {name: ",".join(ids) for name, ids in found.items()}


def _hopeless(value: str) -> Meaning:
    if value.lower() not in {"yes", "no"}:
        raise _Refused("write yes or no")
    return {"keep_waiting": ""} if value.lower() == "no" else {}


def _signal(value: str) -> Meaning:
    """`[B:]USR1[@60]`; the processes that handle the signal get it, so `B:` says nothing more."""
    name, _, before = value.upper().removeprefix("B:").partition("@")
    if name.isdigit():
        known = {str(int(member)): member.name for member in signal.Signals}
        name = known.get(name, name)
    return {"signal": f"{name.removeprefix('SIG')}@{before or _NOTICE_S}"}


def _begin(value: str) -> Meaning:
    match = re.fullmatch(r"now\+(\d{1,9})([a-z]*?)s?", value, re.ASCII)
    if match is None:
        return {"begin": value}
    unit = _SPANS.get(match[2] or "second")
    if unit is None:
        raise _Refused("write now+2hours, 18:30 or 2026-11-22T10:00")
    return {"begin": match[1] + unit}


def _export(value: str) -> Meaning:
    names = value.split(",")
    if names[0].upper() == "NONE" and len(names) == 1:
        return {"env_none": ""}
    if names[0].upper() != "ALL" or not all("=" in pair for pair in names[1:]):
        raise _Refused("all of the environment is sent, secrets apart; write --export=ALL,NAME=VALUE, or --export=NONE")
    return {"env": "\n".join(names[1:])} if names[1:] else {}


_ONE_MACHINE = "a job is one command on one machine; start processes in it, with torchrun for instance"
_ONE_LINE = "there is one line for all; `#GPUQ --group NAME` and `#GPUQ --priority P` are what comes near it"
_LOGS = "gpuq keeps the output, `gpuq logs ID` shows it; for a file write `exec > FILE 2>&1` into the script"
_MAIL = "no mail is sent; `gpuq wait ID && mail …` does"
_MODEL = "choose GPUs with `#GPUQ --gpu-model MODEL` or `#GPUQ --gpu-ids 0,2`"

# Name, its short form, what it means here, and whether it has a value: "" (none), "=" (always), "?" (only behind `=`).
OPTIONS: tuple[tuple[str, str, Callable[[str], Meaning], str], ...] = (
    ("job-name", "J", _same("name"), "="),
    ("gres", "", _gres, "="),
    ("gpus", "G", _gpus, "="),
    ("gpus-per-node", "", _gpus, "="),
    ("gpus-per-task", "", _gpus, "="),
    ("time", "t", _time, "="),
    ("array", "a", _same("array"), "="),
    ("dependency", "d", _dependency, "="),
    ("kill-on-invalid-dep", "", _hopeless, "="),
    ("begin", "b", _begin, "="),
    ("hold", "H", lambda value: {"hold": ""}, ""),
    ("chdir", "D", _same("chdir"), "="),
    ("signal", "", _signal, "="),
    ("export", "", _export, "="),
    ("cpus-per-task", "c", _if_known("cpus"), "="),
    ("mem", "", _if_known("mem"), "="),
    ("nodes", "N", _only("1", _ONE_MACHINE), "="),
    ("ntasks", "n", _only("1", _ONE_MACHINE), "="),
    ("ntasks-per-node", "", _only("1", _ONE_MACHINE), "="),
    ("requeue", "", _nothing, ""),
    ("no-requeue", "", lambda value: {"retries": "0"}, ""),
    ("comment", "", _nothing, "="),
    ("verbose", "v", _nothing, ""),
    ("quiet", "Q", _nothing, ""),
    ("output", "o", _no(_LOGS), "="),
    ("error", "e", _no(_LOGS), "="),
    ("input", "i", _no("a job has no input; write `< FILE` behind the command in the script"), "="),
    ("open-mode", "", _no(_LOGS), "="),
    ("partition", "p", _no(_ONE_LINE), "="),
    ("account", "A", _no(_ONE_LINE), "="),
    ("qos", "q", _no(_ONE_LINE), "="),
    ("reservation", "", _no(_ONE_LINE), "="),
    ("priority", "", _no("write `#GPUQ --priority high`"), "="),
    ("nice", "", _no("write `#GPUQ --priority low`"), "?"),
    ("exclusive", "", _no("write `#GPUQ --gpus N` with all GPUs of the machine"), "?"),
    ("constraint", "C", _no(_MODEL), "="),
    ("nodelist", "w", _no(_ONE_MACHINE), "="),
    ("exclude", "x", _no(_MODEL), "="),
    ("mem-per-cpu", "", _no("write --mem"), "="),
    ("mem-per-gpu", "", _no("write --mem"), "="),
    ("cpus-per-gpu", "", _no("write --cpus-per-task"), "="),
    ("mail-type", "", _no(_MAIL), "="),
    ("mail-user", "", _no(_MAIL), "="),
    ("wait", "W", _no("say it when you submit: `gpuq submit --wait`"), ""),
    ("wrap", "", _no("write the command into the script, or `gpuq submit --shell`"), "="),
)
_BY_NAME = {name: option for option in OPTIONS for name in (f"--{option[0]}", f"-{option[1]}")}


def read(name: str, lines: Sequence[tuple[int, str]]) -> dict[str, list[str]]:
    """The options that #SBATCH lines name, as those of a #GPUQ line. `lines`: number, and text behind the mark. As with
    Slurm, a script that asks for no GPU gets none. Raises UsageError that names what is refused, and in which line."""
    import shlex

    values: dict[str, list[str]] = {"gpus": ["0"]}
    refused: list[str] = []
    for number, text in lines:
        try:
            words = shlex.split(text, comments=True)
        except ValueError as error:
            raise UsageError(f"{name} line {number}: {error}", hint="quote as in a shell") from None
        for flag, what in _of_line(words):
            if isinstance(what, str):
                refused.append(f"{flag} (line {number}): {what}")
                continue
            for option, value in what.items():
                values[option] = value.split("\n") if option == "env" else [value]
    if refused:
        raise UsageError(
            f"{name} has #SBATCH options that have no meaning here: " + "; ".join(refused),
            hint="take them out, or `--ignore-directives` and the options of `gpuq submit`",
        )
    return values


def _of_line(words: list[str]) -> list[tuple[str, Meaning | str]]:
    """Each option with its meaning, or why it is refused."""
    found: list[tuple[str, Meaning | str]] = []
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if not word.startswith("--"):
            flag, value = word[:2], word[2:]
            equals = value
        option = _BY_NAME.get(flag) if len(flag) > 1 else None
        if option is None:
            known = word.startswith("-")
            found.append((flag if known else repr(word), "it is not known" if known else "it is no option"))
            if known:
                # Whether the next word is its value nobody knows.
                break
            continue
        if not equals and option[3] == "=":
            value = next(rest, "")
            if not value:
                found.append((flag, "its value is missing"))
                break
        elif equals and not option[3]:
            found.append((flag, "it takes no value"))
            continue
        try:
            found.append((flag, option[2](value)))
        except _Refused as why:
            found.append((flag, str(why)))
    return found
