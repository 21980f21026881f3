"""Python values as bytes: they come back as they were, and what cannot says so in a line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpuq import GpuqError, RemoteError, UsageError, python_values
from gpuq.python_values import CALL, VALUE, RemoteTraceback, header_of, pack, pack_error, unpack


class Odd(Exception):
    """Can be pickled and not be made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


def caught(raising: Callable[[], Any]) -> Exception:
    try:
        raising()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


def test_values_functions_and_closures_come_back() -> None:
    factor = 3
    data = pack(VALUE, (lambda x: factor * x, {"a": [1, None]}))
    function, value = unpack(data)
    assert (function(2), value) == (6, {"a": [1, None]})
    assert header_of(data).keys() == {"kind", "gpuq", "python", "cloudpickle"}


def test_what_cannot_travel_is_said_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"cannot travel between processes: TypeError: .*lock") as raised:
        pack(CALL, (print, (threading.Lock(),), {}))
    assert "\n" not in str(raised.value)


def test_an_exception_comes_back_as_itself_with_its_traceback_as_the_cause() -> None:
    def deep() -> None:
        raise KeyError("x")

    found = caught(lambda: unpack(pack_error(caught(deep))))
    assert (type(found), found.args) == (KeyError, ("x",))
    assert isinstance(found.__cause__, RemoteTraceback)
    assert "in deep" in str(found.__cause__)


def test_an_exception_that_cannot_be_made_here_is_told_with_its_type_and_text() -> None:
    holding = ValueError("holds", threading.Lock())
    for error, told in ((Odd(1, 2), "Odd: 1"), (holding, "ValueError: ('holds', <unlocked")):
        found = caught(lambda error=error: unpack(pack_error(error)))
        assert isinstance(found, RemoteError)
        assert told in str(found)
        assert isinstance(found.__cause__, RemoteTraceback)


@pytest.mark.parametrize(("what", "there"), [("_python", "2.7"), ("_cloudpickle", "2.9")])
def test_another_python_or_cloudpickle_is_said_before_anything_is_unpickled(
    monkeypatch: pytest.MonkeyPatch, what: str, there: str
) -> None:
    with monkeypatch.context() as other:
        other.setattr(python_values, what, lambda: there)
        value, error = pack(VALUE, 1), pack_error(ValueError("bad"))
    monkeypatch.setattr("pickle.loads", None)
    with pytest.raises(GpuqError, match=f"was written with .* {there[0]}.*, and here is"):
        unpack(value)
    # What was raised is told all the same.
    with pytest.raises(RemoteError, match="ValueError: bad"):
        unpack(error)


@pytest.mark.parametrize("data", [b"", b"\x80\x05.", b"gpuq-python 1 {", b"gpuq-python 1 []\n", b"gpuq-python 1 {\n"])
def test_bytes_of_somebody_else_are_not_unpickled(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("pickle.loads", None)
    with pytest.raises(GpuqError, match="no Python value that gpuq has written"):
        unpack(data)


def test_a_module_that_is_missing_here_is_named() -> None:
    data = pack(VALUE, 1).partition(b"\n")[0] + b"\ncnowhere\nthing\n."
    with pytest.raises(GpuqError, match=r"cannot be made here: ModuleNotFoundError: .*nowhere"):
        unpack(data)
