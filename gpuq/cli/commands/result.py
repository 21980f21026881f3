"""`gpuq result`."""

from __future__ import annotations

import sys

from gpuq.cli.connect import connect
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import one
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.client.transport import Reply


def result(args: Args) -> int:
    """Writes what a job left as its result to a file, or to stdout as it is."""
    client = connect()
    job_id = one(client, args.words[0])
    target = args.path("output")
    reply = client.result(job_id)
    if target is None or target == "-":
        if target is None and sys.stdout.isatty() and not _is_text(reply):
            raise UsageError(
                f"the result of job {job_id} is no text: {len(reply.body)} bytes",
                hint=f"`gpuq result {job_id} -o FILE` writes it to a file; `-o -` to the terminal all the same",
            )
        sys.stdout.buffer.write(reply.body)
        sys.stdout.buffer.flush()
        return 0
    try:
        with open(target, "wb") as file:
            file.write(reply.body)
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror}", hint="name a file that you may write: `-o FILE`"
        ) from None
    return 0


def _is_text(reply: Reply) -> bool:
    """Whether a terminal can show it without harm."""
    try:
        text = reply.body.decode()
    except UnicodeDecodeError:
        return False
    return all(sign.isprintable() or sign in "\r\n\t" for sign in text)
