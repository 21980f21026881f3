"""`gpuq logs`."""

from __future__ import annotations

import sys

from gpuq.cli.connect import connect, say
from gpuq.cli.exit_code import of_job
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import WAITING, one
from gpuq.cli.render import printable, when
from gpuq.client.watch import follow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.client.calls import Calls

CHUNK = 1 << 20


def logs(args: Args) -> int:
    """Writes a job's output to stdout as bytes. With `--follow` until its end, and the exit code is then the job's."""
    client = connect()
    job_id = one(client, args.words[0])
    attempt = args.integer("attempt", least=1)
    lines = args.integer("lines")
    start, number = 0, attempt
    if lines is not None:
        start, number = tail_offset(client, job_id, attempt, lines)
    out = sys.stdout.buffer
    if args.flag("follow"):
        said = [0]

        def on_attempt(current: int) -> None:
            if said[0]:
                say(f"gpuq: attempt {current}")
            said[0] = current

        named = attempt is not None
        if not named:
            _tell_what_it_waits_for(client, job_id)
        for data in follow(client, job_id, attempt=number, only=named, offset=start, on_attempt=on_attempt):
            out.write(data)
            out.flush()
        return of_job(client.job(job_id))
    while True:
        found = client.log(job_id, offset=start, limit=CHUNK, attempt=number)
        out.write(found.data)
        if not found.data or found.next_offset >= found.size:
            break
        # Goes on with the attempt it began with, also when a new one starts meanwhile.
        start, number = found.next_offset, found.attempt or None
    if found.attempt == 0:
        say(f"gpuq: job {job_id} has not run yet")
    return 0


def _tell_what_it_waits_for(client: Calls, job_id: int) -> None:
    """Who follows a job that does not run yet sees nothing otherwise."""
    found = client.why(job_id)
    if found["state"] in WAITING:
        start = f"; it starts about {when(found['estimated_start'])}" if found["estimated_start"] else ""
        reason = f": {printable(found['reason']['text'])}" if found["reason"] else ""
        say(f"gpuq: job {job_id} is {found['state']}{reason}{start}")


def tail_offset(client: Calls, job_id: int, attempt: int | None, lines: int) -> tuple[int, int | None]:
    """Where the last `lines` lines begin, and in which attempt's output."""
    size = client.log(job_id, offset=0, limit=0, attempt=attempt).size
    reach = 8192
    while True:
        start = max(0, size - reach)
        data = b""
        number = attempt
        while start + len(data) < size:
            chunk = client.log(job_id, offset=start + len(data), limit=CHUNK, attempt=number)
            number = chunk.attempt or number
            if not chunk.data:
                break
            data += chunk.data
        data = data[: size - start]
        wanted = _last_lines(data, lines)
        if wanted is not None or start == 0:
            return start + (wanted or 0), number
        reach *= 8


def _last_lines(data: bytes, lines: int) -> int | None:
    """Where in `data` the last `lines` lines begin; None when it has fewer line ends than that takes."""
    if lines == 0:
        return len(data)
    place = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        place = data.rfind(b"\n", 0, place)
        if place < 0:
            return None
    return place + 1
