"""What the layout promises beyond the contracts of import-linter in pyproject.toml."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from gpuq.engine import context

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "gpuq" / "engine"
PACKAGES = sorted(path.parent for path in (ROOT / "gpuq").rglob("__init__.py"))
# Keep values that hold for the whole installation: see `gpuq.ports.records`.
KEPT_VALUES = {"value", "values", "set_value"}
SLICES = {
    "hot": "HotContext",
    "intake": "IntakeContext",
    "snapshot": "SnapshotContext",
    "actions": "ActionContext",
    "queries": "QueryContext",
}


def test_no_module_imports_itself_through_others_not_even_for_a_hint() -> None:
    graph = grimp.build_graph("gpuq", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert {"gpuq.ports.clock", "gpuq.engine.epoch"} <= imports["gpuq.engine.context"], "hints are in the graph"
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_queries_and_snapshots_begin_no_transaction_that_writes() -> None:
    assert _rooms_that_call("records", "write").isdisjoint({"queries", "snapshot"})
    assert _rooms_that_call("records", "read") >= {"queries", "snapshot"}, "the search finds transactions"


def test_only_the_claim_takes_leases() -> None:
    assert _rooms_that_call("leases", "take") == {"claim"}


@pytest.mark.parametrize(("room", "slice_"), SLICES.items())
def test_a_room_knows_its_own_slice_of_the_context_alone(room: str, slice_: str) -> None:
    named = {
        alias.name
        for path in (ENGINE / room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "gpuq.engine.context"
        for alias in node.names
    }
    assert named == {slice_}


def test_no_slice_offers_what_its_room_may_not_do() -> None:
    offered = {name: set(dir(getattr(context, name))) for name in SLICES.values()}
    assert [name for name, members in offered.items() if "leases" in members] == []
    assert {name for name, members in offered.items() if "launcher" in members} == {"ActionContext", "QueryContext"}
    assert not hasattr(context.ReadOnlyRecords, "write")
    for name in ("SnapshotContext", "QueryContext"):
        assert inspect.get_annotations(getattr(context, name).records.fget)["return"] == "ReadOnlyRecords"


def test_keys_of_the_installation_are_written_down_in_one_place() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in _calls(ROOT / "gpuq" / "engine", ROOT / "gpuq" / "server")
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in KEPT_VALUES
        and any(isinstance(word, (ast.Constant, ast.JoinedStr, ast.BinOp)) for word in call.args[:1])
    ]
    assert found == []


def test_the_history_calls_gpuq_itself_by_one_name() -> None:
    literals = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in ENGINE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == "gpuq"
    ]
    assert literals == []


@pytest.mark.parametrize("package", PACKAGES[1:], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_package_says_what_comes_in_what_goes_out_and_what_it_may_import(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    words = " ".join(text.split())
    assert "In: " in words or "In and out: " in words or package == ENGINE
    assert "May import: " in words or package.name == "stores"


def _rooms_that_call(owner: str, method: str) -> set[str]:
    """Sub-packages of the engine with a call such as `ctx.records.write()`."""
    return {
        path.relative_to(ENGINE).parts[0]
        for path, call in _calls(ENGINE)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == method
        and isinstance(call.func.value, (ast.Attribute, ast.Name))
        and (call.func.value.attr if isinstance(call.func.value, ast.Attribute) else call.func.value.id).lstrip("_")
        == owner
    }


def _calls(*folders: Path) -> Iterator[tuple[Path, ast.Call]]:
    for folder in folders:
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield path, node


# A file of more lines, or a function, and why it is one.
LONG_FILES = {
    "cli/parse/command_table.py": "one row a command",
    "settings.py": "one setting after another, each with its bounds and its sentence",
    "ports/records.py": "one port, with what each call raises",
    "stores/sql/core/statements.py": "one reading statement after another",
    "stores/sql/schema/tables.py": "one table after another",
    "supervise/shim.py": "one process from its first instruction to its last",
}
LONG_FUNCTIONS = {
    "cli/commands/replay.py simulate": "one parameter an option",
    "client/client.py submit": "one parameter a field of a submission, each described",
    "client/watch.py follow": "one loop that follows a log from attempt to attempt",
    "domain/job.py job_json": "one line a field of the JSON",
    "engine/attempt/environment.py supervisor_spec": "one line a field of the record",
    "engine/intake/newborn.py job_of": "one line a field of the row",
    "scheduler/forecast.py forecast": "one loop through virtual time",
    "stores/sql/schema/views.py view_statements": "the text of the views",
}


def test_files_have_at_most_300_lines_and_functions_40_but_for_those_named_here() -> None:
    files, functions = set(), set()
    for path in (ROOT / "gpuq").rglob("*.py"):
        name, text = str(path.relative_to(ROOT / "gpuq")), path.read_text()
        if text.count("\n") > 300:
            files.add(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= 40:
                    functions.add(f"{name} {node.name}")
    assert _not_as_named(files, LONG_FILES) == ""
    assert _not_as_named(functions, LONG_FUNCTIONS) == ""


def _not_as_named(found: set[str], named: dict[str, str]) -> str:
    """What to do, for whoever meets this test with a file or function that has grown."""
    told = [
        f"{name} is too long: part it, or name it in tests/unit/test_layout.py" for name in sorted(found - set(named))
    ]
    told += [f"{name} is not long any more: take it out of the list" for name in sorted(set(named) - found)]
    return "; ".join(told)
