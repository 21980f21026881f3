"""`gpuq config`."""

from __future__ import annotations

import re

from gpuq.cli.connect import print_json
from gpuq.cli.parse.options import Args
from gpuq.cli.render import table

_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")


def config(args: Args) -> int:
    """Prints every setting with its value and where the value comes from."""
    from gpuq.settings import load

    settings, sources = load()
    rows = [
        {"name": name, "variable": f"GPUQ_{name.upper()}", "value": shown(name, value), "source": sources[name]}
        for name, value in settings.model_dump(mode="json").items()
    ]
    if args.flag("json"):
        print_json(rows)
        return 0
    cells = [[str(row["variable"]), _text(row["value"]), str(row["source"])] for row in rows]
    print(table(("SETTING", "VALUE", "FROM"), cells))
    return 0


def _text(value: object) -> str:
    return "" if value is None else str(value)


def shown(name: str, value: object) -> object:
    """The value without what must stay secret: the token, and passwords inside URLs."""
    if name == "token" and value:
        return "***"
    return _PASSWORD.sub(r"\1:***@", value) if isinstance(value, str) else value
