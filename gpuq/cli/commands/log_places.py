"""Reading a job's output through the daemon: where its last lines begin, and piece after piece from there."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuq.client.calls import Calls, LogChunk

CHUNK = 1 << 20
# What is read first of an output's end, and how much longer each piece before it is, up to CHUNK.
FIRST = 8192
LONGER = 8


def pieces(
    client: Calls, job_id: int, attempt: int | None, start: int = 0, until: int | None = None
) -> Iterator[LogChunk]:
    """The output from byte `start` to what is there now, or to byte `until`, at least one piece, which may be empty; of
    one attempt, also when a new one starts meanwhile. Raises NotFound."""
    while True:
        limit = CHUNK if until is None else min(CHUNK, until - start)
        found = client.log(job_id, offset=start, limit=limit, attempt=attempt)
        yield found
        if until is not None and found.next_offset >= until:
            return
        if not found.data or found.next_offset >= found.size:
            return
        start, attempt = found.next_offset, found.attempt or None


def last_lines(client: Calls, job_id: int, attempt: int, size: int, lines: int, *, collapse: bool) -> int:
    """Where the last `lines` lines of the first `size` bytes begin. `collapse`: the first of them may begin in its
    middle, where its last state does: what was written over is of no interest, however much it is."""
    if lines == 0:
        return size
    search = _Backwards(size, lines, collapse=collapse)
    end, length = size, FIRST
    while end > 0:
        start = max(0, end - length)
        data = b"".join(piece.data for piece in pieces(client, job_id, attempt, start, end))
        place = search.before(data, start)
        if place is not None:
            return place
        end, length = start, min(length * LONGER, CHUNK)
    return 0


class _Backwards:
    """Looks for the beginning of the last lines, from the end of the output to its beginning."""

    def __init__(self, size: int, lines: int, *, collapse: bool) -> None:
        self._size = size
        self._left = lines
        self._collapse = collapse
        # Whether the line that is being passed has shown anything yet besides carriage returns at its end.
        self._text = False

    def before(self, data: bytes, start: int) -> int | None:
        """`data` is what stands at byte `start`, right before what was looked at last. None: further on."""
        place = len(data)
        while True:
            line_end = data.rfind(b"\n", 0, place)
            if self._left == 1 and self._collapse:
                written_over = self._returned(data, line_end + 1, place)
                if written_over is not None:
                    return start + written_over
            if line_end < 0:
                return None
            # The output's last byte ends a line and begins none.
            if start + line_end < self._size - 1:
                self._left -= 1
                if self._left == 0:
                    return start + line_end + 1
            self._text = False
            place = line_end

    def _returned(self, data: bytes, begin: int, end: int) -> int | None:
        """Where the last state of the line in `data[begin:end]` begins, if it begins there."""
        if not self._text:
            end = begin + len(data[begin:end].rstrip(b"\r"))
            self._text = end > begin
        found = data.rfind(b"\r", begin, end)
        return None if found < 0 else found + 1
