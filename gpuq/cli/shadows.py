"""Other things called gpuq that stand where this one is expected: PyPI's `gpuq`, for one, has the same package name."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

import gpuq

# The name on PyPI, where `gpuq` is another project.
DISTRIBUTION = "gpu-job-queue"


class Shadow(NamedTuple):
    """Something else called gpuq, and what to do about it."""

    text: str
    hint: str


def distributions() -> Iterator[Shadow]:
    """Other distributions in this environment with a package or a command `gpuq`: their files and ours are mixed."""
    seen = set()
    for found in metadata.distributions():
        name = found.metadata["Name"] or ""
        if _normal(name) == DISTRIBUTION or (name, found.version) in seen or not _owns_gpuq(found):
            continue
        seen.add((name, found.version))
        yield Shadow(
            f"the distribution {name} {found.version} in {found.locate_file('')} owns `gpuq`, too:"
            " the files of both are mixed",
            f"pip uninstall {name}, then pip install --force-reinstall --no-deps {DISTRIBUTION}",
        )


def program() -> Iterator[Shadow]:
    """The `gpuq` that PATH leads to, when it is not the one of this environment."""
    first = shutil.which("gpuq")
    if first is None:
        return
    ours = os.path.join(sysconfig.get_path("scripts"), "gpuq")
    # A `pip install --user` has its command elsewhere; then it is the one that was started.
    started = sys.argv[0] if os.path.basename(sys.argv[0]) == "gpuq" else ours
    if os.path.realpath(first) not in {os.path.realpath(ours), os.path.realpath(started)}:
        yield Shadow(f"`gpuq` in PATH is {first}, not {started}", f"put {os.path.dirname(started)} first in PATH")


def folder() -> Iterator[Shadow]:
    """A package or module `gpuq` in the current folder, which Python looks into first."""
    for name in (os.path.join("gpuq", "__init__.py"), "gpuq.py"):
        if os.path.exists(name) and not os.path.samefile(name, gpuq.__file__):
            path = os.path.abspath(name).removesuffix(f"{os.sep}__init__.py")
            yield Shadow(
                f"a Python started in this folder imports {path}, not this gpuq", "rename it, or work elsewhere"
            )


def _owns_gpuq(found: metadata.Distribution) -> bool:
    if any(entry.group == "console_scripts" and entry.name == "gpuq" for entry in found.entry_points):
        return True
    # Read as text: `files` makes a path of each line, and an environment may have a hundred thousand.
    record = found.read_text("RECORD") or ""
    return any(
        line.startswith(("gpuq/__init__.py,", "gpuq.py,")) or "/bin/gpuq," in line for line in record.split("\n")
    )


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
