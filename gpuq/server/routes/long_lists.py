"""Lists of any length in constant memory: made page by page from one snapshot, into a file without a name.

A hundred thousand jobs at once would be some hundred megabytes of objects and text. A file, and not a stream of pages
as they are read, because whoever reads slowly would hold the snapshot open, and the database's log could not be
emptied.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import IO, Any

from gpuq.domain.job import Job
from gpuq.errors import Unavailable
from gpuq.ports.records import JobFilter, Reader
from gpuq.server.routes.questions import FileResponse as FileResponse

# Rows of a page. A list of at most so many is answered as it is.
PAGE = 1000
# Bytes of an answer that are kept in memory.
IN_MEMORY = 4 << 20

Pages = Iterator[Sequence[Mapping[str, Any]]]


def pages_of(reader: Reader, where: JobFilter) -> Iterator[list[Job]]:
    """What the filter finds, in its order, a page at a time."""
    left = where.limit
    after = where.after_id
    while left is None or left > 0:
        jobs = reader.jobs(replace(where, after_id=after, limit=PAGE if left is None else min(left, PAGE)))
        if jobs:
            yield jobs
        if len(jobs) < PAGE:
            return
        after = jobs[-1].id
        left = None if left is None else left - len(jobs)


def answer(pages: Pages, around: Mapping[str, Any] | None = None) -> FileResponse:
    """A JSON list; with `around` as the field `jobs` of these others. Raises Unavailable when there is no room."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
    try:
        _write(file.write, pages, around)
        size = file.tell()
        file.seek(0)
        return FileResponse(file, file.close, size=size)
    except OSError as error:
        with suppress(OSError):
            file.close()
        raise Unavailable(
            f"no room to make so long a list: {error.strerror}", hint="ask for fewer rows with a limit"
        ) from error
    except BaseException:
        file.close()
        raise


def _write(write: Callable[[bytes], object], pages: Pages, around: Mapping[str, Any] | None) -> None:
    start, end = b"[", b"]"
    if around is not None:
        fields = _json(around)
        start, end = fields[:-1] + (b"," if around else b"") + b'"jobs":[', b"]}"
    write(start)
    first = True
    for page in pages:
        if page:
            write((b"" if first else b",") + _json(page)[1:-1])
            first = False
    write(end)


def _json(value: object) -> bytes:
    """As the framework writes its answers."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
