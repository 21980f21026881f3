"""Text of strangers for people to read: names, commands, output. Nothing of it may steer what is shown."""

from __future__ import annotations

import re

# What turns the direction of text round, or is not seen, is shown as what it is.
_HIDDEN = {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)}
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if code not in {0x09, 0x0A}} | {0x7F: "␡"}
_TABLE = _HIDDEN | _CONTROLS | dict.fromkeys(range(0x80, 0xA0), "�")
_ONE_LINE = {0x09: "␉", 0x0A: "␊", 0x2028: "␊", 0x2029: "␊"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    """`text` with what cannot be seen made visible; line breaks and tabs stay."""
    return _SURROGATE.sub("�", text.translate(_TABLE))


def shown_on_a_line(text: str) -> str:
    """As `shown`, and what would begin another line, or jump over columns, is made visible as well."""
    return shown(text.translate(_ONE_LINE))
