"""Every public thing of the package says what it is, where it stands.

Without a docstring may be:
- what is private: a leading underscore, or inside of something private or of a function;
- a method that implements a Protocol of the package: the Protocol's method has the docstring. A class
  implements a Protocol when it defines every method that the Protocol itself defines;
- a method that overrides one of a library's base class, named in `OVERRIDES`;
- a variant of an overloaded function, and a route whose decorator has a `summary`;
- a function or property that is one simple line: name, signature and line say it all. This does not
  hold for the methods of a Protocol, which have no line that could say anything; a property of one says with its name
  and its type what an object has.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import gpuq

PACKAGE = Path(gpuq.__file__).parent
MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

# Called by a library under the name that the library gives them.
OVERRIDES = {"settings_customise_sources", "connection_made", "on_message_begin", "openapi"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def methods(owner: ast.ClassDef) -> set[str]:
    return {node.name for node in owner.body if isinstance(node, Function)}


def is_protocol(owner: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0] == "Protocol" for base in owner.bases)


PROTOCOLS = [
    methods(node)
    for tree in MODULES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef) and is_protocol(node) and methods(node)
]


def implements_a_protocol(owner: ast.ClassDef, name: str) -> bool:
    return any(name in wanted and wanted <= methods(owner) for wanted in PROTOCOLS)


def is_one_line(function: Function) -> bool:
    [first, *more] = function.body
    simple = isinstance(first, ast.Return | ast.Expr | ast.Assign | ast.AugAssign)
    return simple and not more and first.lineno == first.end_lineno


def is_described_by_its_decorator(function: Function) -> bool:
    text = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(one == "overload" or "summary=" in one for one in text)


def may_go_without(function: Function, owner: ast.ClassDef | None) -> bool:
    if is_described_by_its_decorator(function):
        return True
    if owner is None:
        return is_one_line(function)
    if is_protocol(owner):
        return any(ast.unparse(decorator) == "property" for decorator in function.decorator_list)
    return is_one_line(function) or function.name in OVERRIDES or implements_a_protocol(owner, function.name)


def undocumented(body: ast.Module | ast.ClassDef, owner: ast.ClassDef | None = None) -> Iterator[str]:
    prefix = f"{owner.name}." if owner else ""
    for node in body.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield f"{node.lineno} {prefix}{node.name}"
            yield from undocumented(node, node)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            bare = ast.get_docstring(node) is None
            if bare and not may_go_without(node, owner):
                yield f"{node.lineno} {prefix}{node.name}"


def test_every_module_has_a_docstring() -> None:
    bare = [str(path.relative_to(PACKAGE)) for path, tree in MODULES.items() if not ast.get_docstring(tree)]
    assert bare == []


def test_every_public_class_and_function_has_a_docstring() -> None:
    bare = [f"{path.relative_to(PACKAGE)}:{one}" for path, tree in MODULES.items() for one in undocumented(tree)]
    assert bare == []
