"""What came out, as text."""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import NormalDist

from accepted import Accepted
from mutants import Mutant


@dataclass(frozen=True)
class Result:
    """`tests`: how many execute the line; none leave the mutant alive."""

    mutant: Mutant
    verdict: str
    tests: int


def interval(killed: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, in percent (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = killed / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / weight
    half = z / weight * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return 100 * (middle - half), 100 * (middle + half)


def print_report(results: list[Result], listed: list[Accepted], options: argparse.Namespace) -> int:
    """A timeout counts as killed. Returns the exit code: 1 when fewer than the goal were killed."""
    excused = [
        (result, entry.why)
        for result in results
        if result.verdict == "survived"
        for entry in listed
        if entry.matches(result.mutant)
    ]
    counted = [result for result in results if all(result is not other for other, _ in excused)]
    packages: dict[str, Counter[str]] = defaultdict(Counter)
    for result in counted:
        packages[result.mutant.package][result.verdict] += 1
        packages["all"][result.verdict] += 1
    print(
        f"\nseed {options.seed}: {len(results)} of {options.sample} mutants, {len(excused)} accepted and not counted\n"
    )
    print(f"{'package':<20} killed timeout survived  percent (95 % interval)")
    for package in [*sorted(set(packages) - {"all"}), "all"]:
        print(_row(package, packages[package]))
    survivors = sorted((r for r in counted if r.verdict == "survived"), key=lambda r: (r.mutant.path, r.mutant.line))
    _list("Survivors", [(result, "") for result in survivors])
    _list("Accepted survivors", excused)
    dead = sum(result.verdict != "survived" for result in counted)
    return 0 if counted and 100 * dead / len(counted) >= options.goal else 1


def _row(package: str, counts: Counter[str]) -> str:
    total = counts.total()
    dead = total - counts["survived"]
    told = "-"
    if total:
        low, high = interval(dead, total)
        told = f"{100 * dead / total:.0f} % ({low:.0f} to {high:.0f})"
    return f"{package:<20} {counts['killed']:>6} {counts['timeout']:>7} {counts['survived']:>8}  {told}"


def _list(title: str, results: list[tuple[Result, str]]) -> None:
    if not results:
        return
    print(f"\n{title}")
    for result, why in results:
        mutant = result.mutant
        tests = f"{result.tests} tests" if result.tests else "no test executes it"
        print(f"\n{mutant.path}:{mutant.line} ({mutant.operator}, {tests})")
        for mark, text in (("-", mutant.before), ("+", mutant.after)):
            for line in text.splitlines():
                print(f"  {mark} {line}")
        if why:
            print(f"  why: {why}")
