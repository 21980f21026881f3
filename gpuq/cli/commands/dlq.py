"""`gpuq dlq`: the dead-letter queue."""

from __future__ import annotations

import sys

from gpuq.cli.commands.log_lines import last_state
from gpuq.cli.connect import connect, print_json
from gpuq.cli.fitting import fitted
from gpuq.cli.messages import act_on_each, tell
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import one, resolve_ids
from gpuq.cli.render import count, cut, full_time, local_times, printable, width, wrapped
from gpuq.errors import GpuqError, NotFound, Unavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpuq.client.calls import Calls

HEADER = ("ID", "NAME", "USER", "FAILED", "TRIES", "OUTCOME", "ERROR")
# What a narrow terminal does without, so that the errors are seen.
LESS = (("NAME", 24), ("TRIES", 0), ("NAME", 10), ("USER", 0))


def show_all(args: Args) -> int:
    """Prints the dead letters as a table."""
    letters = connect().dlq()
    if args.flag("json"):
        print_json(letters)
        return 0
    if letters:
        print(fitted(HEADER, [_row(letter) for letter in letters], matters="ERROR", less=LESS, right=("ID", "TRIES")))
    print(count(len(letters), "dead letter"))
    return 0


def show(args: Args) -> int:
    """Prints one dead letter with the end of its log."""
    client = connect()
    letter = client.call("GET", f"/dlq/{one(client, args.words[0])}")
    if args.flag("json"):
        print_json(letter)
    else:
        _print(letter)
    return 0


def retry(args: Args) -> int:
    """Queues dead jobs again, their retries reset; asks about each one when none is named."""
    client = connect()
    if not args.words:
        return _ask_for_each(client)
    return _each(_chosen(client, args), lambda job_id: f"job {job_id} is {client.dlq_retry(job_id)['state']}")


def purge(args: Args) -> int:
    """Removes dead letters; the history of the jobs stays. Raises UsageError when none is named."""
    client = connect()
    if not args.words:
        raise UsageError("dlq purge: which?", hint="gpuq dlq purge 7, or all --yes; the jobs' history stays")

    def remove(job_id: int) -> str:
        client.dlq_remove(job_id)
        return f"dead letter {job_id} is gone; `gpuq show {job_id}` still knows the job"

    return _each(_chosen(client, args), remove)


def _chosen(client: Calls, args: Args) -> list[int]:
    if args.words != ["all"]:
        return resolve_ids(client, args.words)
    if not args.flag("yes"):
        raise UsageError(f"{args.command.name} all: that is every dead letter", hint="add --yes")
    return [letter["job_id"] for letter in client.dlq()]


def _each(ids: list[int], verb: Callable[[int], str]) -> int:
    code = act_on_each(ids, lambda job_id: print(verb(job_id)))
    if not ids:
        print("no dead letters")
    return code


def _ask_for_each(client: Calls) -> int:
    if not sys.stdin.isatty():
        raise UsageError("dlq retry: which?", hint="gpuq dlq retry 7, or all --yes; asking needs a terminal")
    letters, code = client.dlq(), 0
    for letter in letters:
        _print(letter)
        answer = _answer()
        if answer == "q":
            break
        job_id = letter["job_id"]
        try:
            if answer == "r":
                print(f"job {job_id} is {client.dlq_retry(job_id)['state']}")
            elif answer == "d":
                client.dlq_remove(job_id)
                print(f"dead letter {job_id} is gone")
        except NotFound as error:
            # Somebody else was faster.
            print(error.message)
        except Unavailable:
            raise
        except GpuqError as error:
            code = max(code, tell(error))
        print()
    if not letters:
        print("no dead letters")
    return code


def _answer() -> str:
    """r, d, s or q; the end of the input is q."""
    while True:
        try:
            word = input("[r]etry, [d]elete, [s]kip, [q]uit? ").strip().lower()[:1]
        except EOFError:
            print()
            return "q"
        if word in {"r", "d", "s", "q"}:
            return word
        print("answer with one of the letters r, d, s, q")


def _print(letter: Any) -> None:
    limit = width()
    told = (
        f"job {letter['job_id']} ({printable(letter['name'])}) of {letter['user']} failed at "
        f"{full_time(letter['failed_at'])} after {count(letter['attempts'], 'attempt')}: {letter['outcome']}"
    )
    print(wrapped(told, 2, limit))
    if letter["error"]:
        print(wrapped(f"  {printable(local_times(letter['error']))}", 4, limit))
    tail = (letter["log_tail"] or "").rstrip("\n")
    for line in tail.split("\n") if tail else ():
        print(cut(f"  | {printable(last_state(line.encode(errors='replace')).decode())}", limit))


def _row(letter: Any) -> list[str]:
    return [
        str(letter["job_id"]),
        letter["name"],
        letter["user"],
        full_time(letter["failed_at"]),
        str(letter["attempts"]),
        letter["outcome"],
        local_times(letter["error"] or ""),
    ]
