"""`gpuq limit`: shows the limits of users and groups, and changes them."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import LONGEST_NUMBER, Args, require_text
from gpuq.cli.render import table
from gpuq.domain.quantities import parse_duration, plain_duration
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = ("WHO", "LIMIT", "MOST", "NOW", "SET BY")
COUNTS = ("gpus", "running", "waiting")
# As much as the daemon takes.
MOST = 1_000_000
_NAMES = {"gpu_hours": "gpu-hours", "time_s": "time"}


def limit(args: Args) -> int:
    """Prints limits, or sets those that options name. Raises UsageError for nonsense."""
    kind, name = _whose(args.words)
    wanted = _wanted(args)
    client = connect()
    if wanted:
        if kind is None:
            raise UsageError("limit: whose limits are to be changed?", hint="write `gpuq limit user NAME --gpus 4`")
        rows = client.set_limits(kind, name, **wanted)
    else:
        rows = client.limits(**{kind: name} if kind in {"user", "group"} else {})
        rows = [row for row in rows if kind != "default" or row["kind"] == "default"]
    if args.flag("json"):
        print_json(rows)
    elif rows:
        print(table(HEADER, [_row(row) for row in rows], right=("MOST", "NOW")))
    else:
        whose = " ".join(filter(None, [kind, name])) or "nobody"
        say(f"gpuq: {whose} has {'a' if whose == 'nobody' else 'no'} limit; `gpuq limit user NAME --gpus 4` sets one")
    return 0


def _whose(words: list[str]) -> tuple[str | None, str | None]:
    if not words:
        return None, None
    kind, *rest = words
    if kind not in {"user", "group", "default"}:
        raise UsageError(f"limit: {kind!r} is not possible", hint="write user NAME, group NAME, or default")
    if kind == "default":
        if rest:
            raise UsageError(f"limit default: {rest[0]!r} is one word too many", hint="write `gpuq limit default`")
        return kind, None
    if not rest:
        raise UsageError(f"limit {kind}: the name is missing", hint=f"write `gpuq limit {kind} NAME`")
    name = require_text(rest[0], f"the {kind}'s name")
    if not 1 <= len(name) <= 200 or not name.isprintable():
        hint = "a name has 1 to 200 characters on one line"
        raise UsageError(f"limit {kind}: {name!r} is not the name of a {kind}", hint=hint)
    return kind, name


def _wanted(args: Args) -> dict[str, Any]:
    """Fields of the request, None for what is removed."""
    found: dict[str, Any] = {}
    for what in COUNTS:
        if (text := args.text(what)) is not None:
            found[what] = _lifted(text, lambda text, what=what: _count(what, text))
    if (text := args.text("time")) is not None:
        found["time_s"] = _lifted(text, lambda text: _named("--time", text))
    if (text := args.text("gpu_hours")) is not None:
        found["gpu_hours"] = _lifted(text, _hours)
    return found


def _lifted(text: str, read: Any) -> Any:
    word = text.strip().lower()
    return None if word == "none" else word if word == "unlimited" else read(text.strip())


def _count(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--{what}: {text!r} is not a number", hint="write a number, none, or unlimited")
    if len(text) > LONGEST_NUMBER or int(text) > MOST:
        raise UsageError(f"--{what}: at most {MOST}, not {text}", hint="`unlimited` lifts the limit")
    return int(text)


def _hours(text: str) -> dict[str, float]:
    """Of `100/7d`, as the request has it."""
    hours, slash, window = text.partition("/")
    plain = hours.strip()
    if not (slash and plain.isascii() and plain.replace(".", "", 1).isdigit() and len(plain) <= LONGEST_NUMBER):
        raise UsageError(f"--gpu-hours: {text!r} is not a number of hours in a window", hint="write 100/7d, or none")
    seconds = _named("--gpu-hours", window)
    if not 3600 <= seconds <= 366 * 86400:
        raise UsageError(f"--gpu-hours: a window has from 1h to 366d, not {window.strip()}", hint="write 100/7d")
    return {"hours": float(plain), "window_s": seconds}


def _named(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from None


def _row(row: Any) -> list[str]:
    what = row["what"]
    whose = " ".join(filter(None, [row["kind"], row["name"]]))
    by = f"`gpuq limit {row['set_for']}`, {row['set_by']}" if row["source"] == "sql" else row["set_for"]
    return [whose, _NAMES.get(what, what), _most(row), "" if row["used"] is None else f"{row['used']:g}", by]


def _most(row: Any) -> str:
    if row["limit"] is None:
        return "unlimited"
    if row["what"] == "time_s":
        return plain_duration(row["limit"])
    window = "" if row["window_s"] is None else f"/{plain_duration(row['window_s'])}"
    return f"{row['limit']:g}{window}"
