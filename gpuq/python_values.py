"""Python values as bytes, for functions that run as jobs: a line that says what follows, then a pickle.

The line is JSON, so that whoever is not to unpickle can still tell what it is, and so that two Pythons that do not
understand each other say so instead of failing somewhere inside. Unpickling runs code: only bytes of one's own user's
are unpickled, and never in daemon, stores, supervisor or command line (held by import-linter).
"""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import sys
import traceback
from typing import Any

import cloudpickle

from gpuq.errors import GpuqError, RemoteError, UsageError

_MAGIC = b"gpuq-python 1 "
# Of the version of a pickle that Python 3.8 and later read.
_PROTOCOL = 5
VALUE, ERROR, CALL = "value", "error", "call"


class RemoteTraceback(Exception):
    """The traceback of an exception where it was raised, in another process; the cause of what is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


def pack(kind: str, value: object, **header: object) -> bytes:
    """Raises UsageError, in one line, for what cannot be pickled."""
    try:
        body: bytes = cloudpickle.dumps(value, protocol=_PROTOCOL)
    except Exception as error:
        raise UsageError(
            f"this cannot travel between processes: {_line(error)}",
            hint="locks, open files, generators and GPU handles cannot; pass what they are made from",
        ) from error
    return _head(kind, header) + body


def pack_error(error: BaseException) -> bytes:
    """The exception with its traceback; one that cannot be pickled is told by its type and text."""
    text = "".join(traceback.format_exception(error))
    header = {"type": _name(type(error)), "message": str(error), "traceback": text}
    try:
        body: bytes = cloudpickle.dumps(error, protocol=_PROTOCOL)
        pickle.loads(body)
    except Exception:  # noqa: BLE001 - whatever a class of somebody's does when it is pickled
        body = b""
    return _head(ERROR, header) + body


def header_of(data: bytes) -> dict[str, Any]:
    """What the bytes say of themselves, without unpickling. Raises GpuqError when they are none of ours."""
    line, end, _ = data.partition(b"\n")
    try:
        header = json.loads(line.removeprefix(_MAGIC)) if end and line.startswith(_MAGIC) else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise GpuqError("these bytes are no Python value that gpuq has written", hint="was the file changed?")
    return header


def unpack(data: bytes) -> Any:
    """The value. What was raised in its stead is raised here as itself, with the traceback from there as its cause;
    RemoteError where it could not travel. Raises GpuqError, in one line, where Python or cloudpickle differ too much,
    and where a module that it needs is missing here."""
    header = header_of(data)
    body = data.partition(b"\n")[2]
    if header.get("kind") == ERROR:
        raise _error(header, body)
    _require_same(header)
    try:
        return pickle.loads(body)
    except Exception as error:
        raise GpuqError(
            f"the value cannot be made here: {_line(error)}", hint="are the modules that it needs installed here, too?"
        ) from error


def _error(header: dict[str, Any], body: bytes) -> BaseException:
    text = str(header.get("traceback", ""))
    found: BaseException | None = None
    if body:
        try:
            _require_same(header)
            made = pickle.loads(body)
            found = made if isinstance(made, BaseException) else None
        except Exception:  # noqa: BLE001 - then it is told as text
            found = None
    if found is None:
        found = RemoteError(f"{header.get('type')}: {header.get('message')}")
    found.__cause__ = RemoteTraceback(text)
    return found


def _head(kind: str, more: dict[str, Any]) -> bytes:
    # Not imported, for the package's hints name everything that is built on this.
    version = sys.modules["gpuq"].__version__
    header = {"kind": kind, "gpuq": version, "python": _python(), "cloudpickle": _cloudpickle(), **more}
    return _MAGIC + json.dumps(header).encode() + b"\n"


def _require_same(header: dict[str, Any]) -> None:
    for what, there, here in (
        ("Python", str(header.get("python")), _python()),
        # Its major version: the others read each other's pickles.
        ("cloudpickle", str(header.get("cloudpickle")).partition(".")[0], _cloudpickle().partition(".")[0]),
    ):
        if there != here:
            raise GpuqError(
                f"this was written with {what} {there}, and here is {what} {here}",
                hint=f"use the same {what} on both sides",
            )


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _cloudpickle() -> str:
    return importlib.metadata.version("cloudpickle")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
