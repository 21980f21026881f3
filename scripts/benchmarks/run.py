"""Runs the benchmarks and prints Markdown; `scripts/bench --help` tells how. Ends with 1 when a goal was missed by more
than the noise that was measured."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import goals
import gpuq_figures as own
from floors import commit, floors
from foretold import foretold
from page import page
from restarts import restarts
from stats import HEAD, Figure
from watching import storms, watching


def plan(quick: bool) -> dict[str, Callable[[], list[Figure]]]:
    return {
        "floors": floors,
        "dispatch": lambda: own.dispatch(30 if quick else 200),
        "burst": lambda: own.burst(5 if quick else 20),
        "throughput": lambda: own.throughput(3 if quick else 5),
        "submission": lambda: own.submission(500 if quick else 3000, 25_000),
        "request_memory": own.request_memory,
        "from_file": lambda: own.from_file(25_000),
        "command_line": lambda: own.command_line(10 if quick else 40),
        "depth": lambda: own.depth(10 if quick else 60),
        "restarts": lambda: restarts(100_000),
        "forecast": lambda: foretold(20 if quick else 1),
        "storms": storms,
        "watching": lambda: watching(10, 5 if quick else 30),
        "page": lambda: page(5 if quick else 20, 10 if quick else 60),
        "idle": lambda: own.idle(20 if quick else 60),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="which: " + ", ".join([*plan(False), "peers"]))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--no-peers", action="store_true", help="leave the other queues out")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    Path("build").mkdir(exist_ok=True)
    steps = plan(options.quick)
    if not options.no_peers:
        import peers

        steps["peers"] = lambda: peers.peers(quick=options.quick)
    unknown = set(options.names) - set(steps)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    figures: list[Figure] = [commit(", at the beginning")]
    print(HEAD, figures[0].row(), sep="\n", flush=True)
    for name, step in steps.items():
        if options.names and name not in options.names:
            continue
        for figure in step():
            figures.append(figure)
            print(figure.row(), flush=True)
    figures.append(commit(", at the end"))
    print(figures[-1].row())
    verdicts = goals.judge(figures)
    print("", goals.HEAD, *(verdict.row() for verdict in verdicts), sep="\n")
    if options.json:
        options.json.write_text(json.dumps([figure.to_json() for figure in figures], indent=2))
    if beyond := goals.missed(verdicts):
        sys.exit(f"missed by more than the noise: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
