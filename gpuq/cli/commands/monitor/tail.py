"""The end of a job's output as lines to look at: bounded, and without what would steer a terminal."""

from __future__ import annotations

import codecs
import re
from collections import deque

from gpuq.client.calls import Calls
from gpuq.domain.visible_text import shown

# Lines and characters of a line that are kept, and bytes of one request.
MAX_LINES = 2000
MAX_LINE = 2000
CHUNK = 64 * 1024
# Colours, movements of the cursor, titles: what is said to a terminal rather than shown.
_SAID = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)|[@-Z\\-_])")


class Tail:
    """The output of the newest attempt of `job_id`. `read` asks for what is new; `lines` gives what to show."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.final = False
        self.attempt = 0
        self._offset = -CHUNK
        self._start()

    def _start(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def read(self, client: Calls) -> None:
        """Asks for what is new. At most `CHUNK` bytes are asked for at a time; where more has come, for its end."""
        chunk = client.log(self.job_id, offset=self._offset, limit=CHUNK)
        if chunk.attempt != self.attempt:
            begun = self.attempt
            self.attempt = chunk.attempt
            self._start()
            if begun:
                # A later attempt writes a new file; the offset was that of the one before.
                self._offset = -CHUNK
                self.read(client)
                return
        self.final = chunk.final
        self._offset = chunk.next_offset
        self._add(self._decode(chunk.data))
        if chunk.size - chunk.next_offset > CHUNK:
            left_out = chunk.size - CHUNK - chunk.next_offset
            self._start()
            self._lines.append(f"… {left_out:,} bytes are left out here: `gpuq logs {self.job_id}` has them …")
            self._offset = chunk.size - CHUNK

    def lines(self) -> list[str]:
        """The last lines, the one without an end among them."""
        return [*self._lines, *([_seen(self._rest)] if self._rest else [])]

    def _add(self, text: str) -> None:
        first, *more = text.split("\n")
        self._rest = _short(self._rest + first)
        for line in more:
            self._lines.append(_seen(self._rest))
            self._rest = _short(line)


def _short(line: str) -> str:
    """The line, or the end of one that is longer than anybody reads: there a progress bar stands."""
    return line if len(line) <= 2 * MAX_LINE else line[-MAX_LINE:]


def _seen(line: str) -> str:
    """What a terminal shows of a line with carriage returns: the last piece with something in it."""
    pieces = [piece for piece in _SAID.sub("", line).split("\r") if piece]
    text = pieces[-1] if pieces else ""
    if len(text) > MAX_LINE:
        text = "… " + text[-MAX_LINE:]
    return shown(text.expandtabs(8))
