"""`gpuq submit --from-file`: a job a line, all of them or none."""

from __future__ import annotations

import json
import sys

from gpuq.cli.parse.options import Args
from gpuq.cli.parse.spec import check_command, directory, environment, from_file_line
from gpuq.client.calls import Calls
from gpuq.client.errors import from_reply
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

# Options that say how to submit; what to submit stands in the file.
_ALLOWED = frozenset(
    {
        "from_file",
        "json",
        "parsable",
        "wait",
        "no_check",
        "env",
        "env_keep",
        "env_all",
        "env_none",
        "env_drop",
        "chdir",
        "test_only",
    }
)

# What the daemon takes as one request.
MAX_BYTES = 64 * 1024 * 1024
HINT = 'a line is one job: {"command": ["python", "train.py"], "gpus": 1}'


class BatchLine:
    """A submission and the number of the line that it came from."""

    __slots__ = ("number", "spec")

    def __init__(self, number: int, spec: dict[str, Any]) -> None:
        self.number = number
        self.spec = spec


class BatchFile:
    """The lines of a file and what lies under each: `env` and other fields."""

    __slots__ = ("lines", "under")

    def __init__(self, lines: list[BatchLine], under: dict[str, Any]) -> None:
        self.lines = lines
        self.under = under


def read(args: Args, client: Calls) -> BatchFile:
    """Raises UsageError that names the file and the line."""
    name = args.path("from_file") or ""
    wrong = [option for option in args.values if option not in _ALLOWED]
    if wrong or args.words:
        what = f"--{wrong[0].replace('_', '-')}" if wrong else repr(args.words[0])
        raise UsageError(f"--from-file and {what} cannot go together", hint="write it into the lines of the file")
    cwd = directory(args.text("chdir"))
    under = environment(args, client, cwd)
    lines = _lines(name, under["env"], cwd, check=not args.flag("no_check") and not client.is_remote)
    if not lines:
        raise UsageError(f"{_shown(name)} has no jobs", hint=HINT)
    return BatchFile(lines, under)


def _lines(name: str, env: dict[str, str], cwd: str, *, check: bool) -> list[BatchLine]:
    if name == "-":
        return _parse(_shown(name), sys.stdin.buffer, env, cwd, check=check)
    try:
        with open(name, "rb") as file:
            return _parse(name, file, env, cwd, check=check)
    except OSError as error:
        hint = "--from-file takes a file, or - for stdin"
        raise UsageError(f"cannot read {name}: {error.strerror}", hint=hint) from None


def _shown(name: str) -> str:
    return "stdin" if name == "-" else name


def _bounded(name: str, file: BinaryIO) -> Iterator[bytes]:
    """The lines; more than the daemon takes at once is not read. Raises UsageError."""
    left = MAX_BYTES
    while line := file.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise UsageError(
                f"{name} is longer than 64 MiB, which is more than the daemon takes at once",
                hint="split it, for example with `split -l 10000`, and submit one part after another",
            )
        yield line


def _parse(name: str, file: BinaryIO, env: dict[str, str], cwd: str, *, check: bool) -> list[BatchLine]:
    lines: list[BatchLine] = []
    seen: set[tuple[str, str, str | None]] = set()
    for number, raw in enumerate(_bounded(name, file), 1):
        if not raw.strip():
            continue
        where = f"{name} line {number}: "
        try:
            spec = json.loads(raw)
        except (ValueError, RecursionError) as error:
            deep = isinstance(error, RecursionError)
            text = "nested too deep" if deep else str(error).replace("line 1 column", "column")
            raise UsageError(f"{where}not JSON: {text}", hint=HINT) from None
        if not _is_text(raw, spec):
            raise UsageError(
                f"{where}half of a surrogate pair, which is no character", hint="write the file as UTF-8 text"
            )
        if not isinstance(spec, dict):
            raise UsageError(f"{where}not a JSON object", hint=HINT)
        spec = from_file_line(spec, cwd)
        command = spec.get("command")
        if check and not spec.get("script") and isinstance(command, list) and command and isinstance(command[0], str):
            own = spec.get("env")
            path = own.get("PATH", env.get("PATH")) if isinstance(own, dict) else env.get("PATH")
            # What is no text the daemon refuses.
            program = (command[0], str(spec["cwd"]), path if isinstance(path, str) else None)
            # Thousands of lines mostly name one program.
            if program not in seen:
                check_command(command, program[1], program[2], where)
                seen.add(program)
        lines.append(BatchLine(number, spec))
    return lines


def _is_text(raw: bytes, spec: object) -> bool:
    """Whether every character can be sent. `json` lets halves of surrogate pairs pass, escaped or (0xED) not."""
    if b"\\u" not in raw and b"\xed" not in raw:
        return True
    try:
        json.dumps(spec, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def post(client: Calls, name: str, batch: BatchFile) -> list[Any]:
    """In one transaction. Raises the daemon's error with the number of the line that it is about."""
    lines = batch.lines
    body = {**batch.under, "jobs": [line.spec for line in lines]}
    try:
        reply = client.send_jobs(body, accept=(404, 409, 413, 422))
    except RecursionError:
        # Writing takes a little more of the stack than reading did.
        raise UsageError(f"a line of {_shown(name)} is nested too deep", hint=HINT) from None
    if reply.status < 400:
        jobs: list[Any] = json.loads(reply.body)
        return jobs
    error = from_reply(reply.status, reply.body)
    index = json.loads(reply.body)["error"].get("index")
    if isinstance(index, int) and index < len(lines):
        text = error.message.removeprefix(f"item {index + 1} of the list: ")
        raise type(error)(f"{_shown(name)} line {lines[index].number}: {text}", hint=error.hint)
    if reply.status == 413:
        # There are several bounds: the daemon says which it was, and what to do.
        raise type(error)(f"{_shown(name)}: {error.message}", hint=error.hint)
    raise error
