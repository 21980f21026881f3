"""The Python interface as a page. What `gpuq` exports is taken from `gpuq.__all__`; the texts are the docstrings, which
the site's builder reads from the source."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from tables import all_errors

import gpuq

# What most readers come for; the rest follows by name.
FIRST = ("Client", "Job")


def names() -> list[str]:
    """What `gpuq` exports, without its errors, which have a part of their own."""
    offered = [name for name in gpuq.__all__ if not name.startswith("__")]
    values = [name for name in offered if not _is_error(getattr(gpuq, name))]
    return sorted(values, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))


def _is_error(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)


def sections() -> str:
    return "\n".join(f"## {name}\n\n::: gpuq.{name}\n" for name in names())


def errors() -> str:
    """The error tree as a list whose indentation is the inheritance."""

    def lines() -> Iterator[str]:
        for kind in all_errors():
            depth = len(kind.__mro__) - 4
            text = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0] if "__doc__" in vars(kind) else ""
            yield f"{'    ' * depth}- `{kind.__name__}`{': ' + text if text else ''}\n"

    return "".join(lines())
