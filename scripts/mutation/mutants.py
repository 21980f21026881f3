"""Which mutants there are: cosmic-ray's operators at every place where a change is a change of behaviour."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator

# Of cosmic-ray's 213 operators those that imitate a slip of a programmer. No operator touches a string.
_BINARY = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "BitOr_BitAnd", "BitAnd_BitOr")
_COMPARISON = (
    "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
    "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "GtE_Lt", "Gt_LtE", "LtE_Gt",
)  # fmt: skip
_OTHERS = (
    "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub",
    "AddNot", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue",
    "NumberReplacer", "ExceptionReplacer", "ZeroIterationForLoop",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak",
)  # fmt: skip
_LOGGING = re.compile(r"^_?(log|logger|logging)\.")

Position = tuple[int, int]
Span = tuple[Position, Position]


class RemoveCall(Operator):
    """A call whose result nobody uses is left out: a forgotten step."""

    def mutation_positions(self, node: parso.tree.NodeOrLeaf) -> Iterator[Span]:
        if node.type == "simple_stmt" and node.children[0].type in {"atom_expr", "power"}:
            call = node.children[0]
            if call.get_last_leaf().value == ")":
                yield call.start_pos, call.end_pos

    def mutate(self, node: parso.tree.BaseNode, index: int) -> parso.tree.BaseNode:
        call = node.children[0]
        node.children[0] = parso.python.tree.Name("pass", call.start_pos, call.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(1)\n", "pass\n"),)


@dataclass(frozen=True)
class Mutant:
    """`lines`: of the statement, or of the head of a compound one, for finding the tests that execute it. `at_import`:
    it is in no function. `before`, `after`: what changes, `previous`: the line above it, all without their margin."""

    path: str
    line: int
    lines: tuple[int, int]
    at_import: bool
    operator: str
    before: str
    after: str
    previous: str
    source: str

    @property
    def package(self) -> str:
        return "/".join(self.path.split("/")[:2])


def operators() -> dict[str, Operator]:
    names = [f"ReplaceBinaryOperator_{pair}" for pair in _BINARY]
    names += [f"ReplaceComparisonOperator_{pair}" for pair in _COMPARISON]
    names += _OTHERS
    return {"RemoveCall": RemoveCall()} | {name: get_operator(f"core/{name}")() for name in names}


class File:
    """One file and the places in it that can be mutated. Making a mutant takes a parse, so few are made."""

    def __init__(self, root: Path, path: str) -> None:
        self.path = path
        self._source = (root / path).read_text()
        tree = ast.parse(self._source)
        self._original, self._statements = ast.dump(tree), _statements(tree)
        self._functions = _functions(tree)
        self._operators = operators()
        silent = _silent(tree)
        nodes, text = list(ast_nodes(get_ast(self._source))), self._source.splitlines()
        # (operator, occurrence, line), in an order that depends on the text only.
        self.places: list[tuple[str, int, int]] = []
        for name, operator in self._operators.items():
            spans = [span for node in nodes for span in operator.mutation_positions(node)]
            for occurrence, (start, end) in enumerate(spans):
                # The bare `*` of a signature is no multiplication: as `/` it only takes a way of calling away.
                marker = text[start[0] - 1].startswith("*,", start[1])
                if not marker and not any(first <= start and end <= last for first, last in silent):
                    self.places.append((name, occurrence, start[0]))

    def make(self, place: tuple[str, int, int]) -> Mutant | None:
        """None where an operator changes nothing, or makes what is no Python."""
        name, occurrence, line = place
        mutated = mutate_code(self._source, self._operators[name], occurrence)
        if mutated is None or not _differs(mutated, self._original):
            return None
        before, after, previous = _changed(self._source, mutated)
        lines = _around(self._statements, line)
        at_import = not any(first <= line <= last for first, last in self._functions)
        return Mutant(self.path, line, lines, at_import, name, before, after, previous, mutated)


def _differs(mutated: str, original: str) -> bool:
    """Not where only the layout changed, or what is no Python any more."""
    try:
        return ast.dump(ast.parse(mutated)) != original
    except SyntaxError:
        return False


def _changed(source: str, mutated: str) -> tuple[str, str, str]:
    """The lines that differ, there and here, and the one above them, without their margin."""
    old, new = source.splitlines(), mutated.splitlines()
    first = next(at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    tail = 0
    while tail < min(len(old), len(new)) - first - 1 and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    before, after = old[first : len(old) - tail], new[first : len(new) - tail]
    previous = old[first - 1].strip() if first else ""
    return "\n".join(line.strip() for line in before), "\n".join(line.strip() for line in after), previous


def _span(node: ast.AST) -> Span:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


def _silent(tree: ast.Module) -> list[Span]:
    """Where a change says nothing about the tests: annotations, decorators, `__slots__`, logs, wording, tuning."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            found.append(node.annotation)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found += node.decorator_list
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            found.append(node.returns)
        if isinstance(node, ast.Call) and _LOGGING.match(ast.unparse(node.func)):
            found.append(node)
        # Outside the crash tests, which are not run here, a fault point does nothing.
        if isinstance(node, ast.Expr) and _is_fault_point(node):
            found.append(node)
        if isinstance(node, ast.If) and not node.orelse and all(map(_is_fault_point, node.body)):
            found.append(node.test)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"__slots__", "__all__"}:
            found.append(node)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            found.append(node)
        # Where it is set by hand, to spare the import of typing: with True, modules would be loaded for their types.
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TYPE_CHECKING":
            found.append(node.value)
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("__name__ =="):
            found.append(node.test)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and _is_union(node):
            found.append(node.value)
        if isinstance(node, ast.expr) and _is_tuning(node):
            found.append(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and _is_tuning(node.right):
            # `4 * 1024 * 1024`: one number.
            found += [node.left] if isinstance(node.left, ast.Constant) else []
        if isinstance(node, ast.Assign) and re.fullmatch(r"_?[A-Z_]+_S", ast.unparse(node.targets[0])):
            found.append(node.value)
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.IfExp) and _is_wording(node)):
            found.append(node)
    flags = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and _is_flag(node.right)]
    return [_span(node) for node in found] + [(_span(node.left)[1], _span(node.right)[0]) for node in flags]


def _is_tuning(node: ast.expr) -> bool:
    """Of a period or a batch size one more or less is as good. (A constant in seconds is called `…_S`.)"""
    return isinstance(node, ast.Constant) and type(node.value) in {int, float} and abs(node.value) > 10


def _is_wording(node: ast.IfExp) -> bool:
    """One text or another, at least one of them put together for people."""
    texts = [node.body, node.orelse]
    return all(isinstance(text, ast.JoinedStr | ast.Constant) for text in texts) and any(
        isinstance(text, ast.JoinedStr) for text in texts
    )


def _is_fault_point(node: ast.stmt) -> bool:
    return ast.unparse(node).startswith("failpoints.point(")


def _is_flag(node: ast.expr) -> bool:
    """Python opens every descriptor so that it is closed on exec; the flag says it again."""
    return ast.unparse(node) == "os.O_CLOEXEC"


def _is_union(node: ast.Assign) -> bool:
    """`Doing = Start | Wait`: a name for a type."""
    text = ast.unparse(node)
    return re.fullmatch(r"[A-Z]\w+ = [A-Z][\w.\[\], ]*( \| [\w.\[\], ]+)+", text) is not None


def _statements(tree: ast.Module) -> list[tuple[int, int]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None) or getattr(node, "cases", None)
            last = node.end_lineno or node.lineno
            if body:
                inner = body[0].pattern if isinstance(body[0], ast.match_case) else body[0]
                last = max(node.lineno, inner.lineno - 1)
            found.append((node.lineno, last))
        elif isinstance(node, ast.ExceptHandler):
            found.append((node.lineno, max(node.lineno, node.body[0].lineno - 1)))
    return found


def _functions(tree: ast.Module) -> list[tuple[int, int]]:
    """Their bodies; what stands in the head is executed at import."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(node.body[0].lineno, node.end_lineno or node.lineno) for node in functions]


def _around(statements: list[tuple[int, int]], line: int) -> tuple[int, int]:
    fitting = [(first, last) for first, last in statements if first <= line <= last]
    return min(fitting, key=lambda lines: lines[1] - lines[0], default=(line, line))
