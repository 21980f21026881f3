"""The Python interface as a page. What `gpuq` exports is taken from `gpuq.__all__`; the texts are the docstrings, which
the site's builder reads from the source."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from tables import all_errors

import gpuq


def sections() -> str:
    def parts() -> Iterator[str]:
        for name in sorted(gpuq.__all__):
            if name.startswith("__"):
                continue
            yield f"## {name}\n\n::: gpuq.{name}\n    options:\n      show_root_toc_entry: false\n"

    return "\n".join(parts())


def errors() -> str:
    """The error tree as a list whose indentation is the inheritance."""

    def lines() -> Iterator[str]:
        for kind in all_errors():
            depth = len(kind.__mro__) - 4
            text = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0] if "__doc__" in vars(kind) else ""
            yield f"{'    ' * depth}- `{kind.__name__}`{': ' + text if text else ''}\n"

    return "".join(lines())
