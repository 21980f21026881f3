"""The list of mutants that no test can find speaks of the code as it is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = ROOT / "tests" / "mutation" / "equivalent.toml"


@pytest.fixture(scope="module")
def accepted() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("accepted", ROOT / "scripts" / "mutation" / "accepted.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules["accepted"] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["accepted"]


def test_every_accepted_mutant_names_one_line_of_the_code_and_changes_it(accepted: Any) -> None:
    entries = accepted.read_accepted(LIST)
    assert entries
    for entry in entries:
        assert entry.places(ROOT) == 1, f"{entry.file} has {entry.places(ROOT)} lines like: {entry.line}"
        assert entry.becomes != entry.line
        assert entry.why


def test_an_entry_whose_line_has_changed_is_in_no_place(accepted: Any, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("if x:\n    return 1\nif y:\n    return 1\n")
    listed = tmp_path / "equivalent.toml"

    def places(file: str, line: str, after: str | None = None) -> int:
        words = {"file": file, "line": line, "becomes": "return 2", "why": "-"} | ({"after": after} if after else {})
        listed.write_text("[[mutant]]\n" + "".join(f"{name} = '''{text}'''\n" for name, text in words.items()))
        [entry] = accepted.read_accepted(listed)
        return int(entry.places(tmp_path))

    assert places("a.py", "return 1") == 2
    assert places("a.py", "return 1", after="if y:") == 1
    assert places("a.py", "if x:\nreturn 1") == 1
    assert places("a.py", "if x:", after="return 1") == 0
    assert places("a.py", "return 2") == 0
    assert places("b.py", "return 1") == 0


def test_an_entry_with_context_speaks_of_one_of_two_like_lines(accepted: Any) -> None:
    class Mutant:
        path, before, after, previous = "a.py", "return 1", "return 2", "if y:"

    words = {"file": "a.py", "line": "return 1", "becomes": "return 2", "why": "-"}
    assert accepted.Accepted(**words).matches(Mutant)
    assert accepted.Accepted(**words, after="if y:").matches(Mutant)
    assert not accepted.Accepted(**words, after="if x:").matches(Mutant)
    assert not accepted.Accepted(**{**words, "becomes": "return 3"}).matches(Mutant)
