"""Writes into pages what their commands print now; see scripts/docs --record.

Only where it differs: times and process ids of an unchanged output stay. What comes out is to be read before it is
committed, and columns may have to be put in line again, because the user's name is not as long as alice's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "services"))

from console import FENCE, Reader, commands, one_reader, starts_a_daemon  # noqa: E402

# How long a command that only reads is asked again until it says what the page says.
SOON_S = 5.0
BODY = re.compile(r"(```console\n).*?(^```$)", re.DOTALL | re.MULTILINE)


def record(page: Path) -> None:
    """Carries out the whole page in a fresh home."""
    text = page.read_text()
    with one_reader() as reader:
        if not starts_a_daemon(text):
            reader.run("gpuq up -d")
        page.write_text(FENCE.sub(lambda found: _block(reader, found), text))


def _block(reader: Reader, found: re.Match[str]) -> str:
    if found["word"] == "file":
        (reader.home / found["about"]).write_text(found["text"])
    if found["word"] is not None or found["kind"] != "console":
        return found[0]
    rows = "\n".join(_rows(reader, found["text"]))
    return BODY.sub(lambda block: f"{block[1]}{rows}\n{block[2]}", found[0])


def _rows(reader: Reader, text: str) -> Iterator[str]:
    for command in commands(text):
        same, printed = reader.carry_out(command, SOON_S)
        yield "$ " + command.line.replace("\n", "\n> ")
        yield from command.expected if same else printed
