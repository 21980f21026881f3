"""The glossary names things of the code as the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
# A word with capitals inside is a class; one in backticks with an underscore, or called, is a function or a module.
CLASS = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b")
FUNCTION = re.compile(r"`([a-z]+(?:_[a-z]+)+)`")
MODULE = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.py)`")
ELSEWHERE = re.compile(r"\|[^|]*\|$", re.MULTILINE)
OURS = ELSEWHERE.sub("|", GLOSSARY)


def defined() -> Iterator[str]:
    for path in (ROOT / "gpuq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name


NAMES = set(defined())


@pytest.mark.parametrize("name", sorted({*CLASS.findall(OURS), *FUNCTION.findall(OURS)}))
def test_a_name_of_the_glossary_is_one_of_the_code(name: str) -> None:
    assert name in NAMES


@pytest.mark.parametrize("name", sorted(set(MODULE.findall(OURS))))
def test_a_module_of_the_glossary_exists(name: str) -> None:
    assert (ROOT / "gpuq" / name).is_file()


def test_the_glossary_names_much_of_the_code() -> None:
    assert len({*CLASS.findall(OURS), *FUNCTION.findall(OURS)}) > 20
    assert len(set(MODULE.findall(OURS))) >= 3
