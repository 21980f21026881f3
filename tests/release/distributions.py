"""A committed copy of this tree, and the distributions that are built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("GPUQ_", "GIT_", "PYTHON"))}
SOURCE_DATE = "1790000000"
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "dist")


def git(folder: Path, *words: str) -> str:
    """What git prints; as somebody, since committing needs a name."""
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *words], env=CLEAN, check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def commit_all(folder: Path) -> str:
    """The first ten digits of a commit with everything in `folder`."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")
    return git(folder, "rev-parse", "HEAD")[:10]


def build(source: Path, out: Path, *what: str, umask: int = 0o022) -> None:
    """`what` is --sdist, --wheel or both; with nothing, the wheel is built from the sdist."""
    words = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", str(out), str(source)]
    env = {**CLEAN, "SOURCE_DATE_EPOCH": SOURCE_DATE}
    done = subprocess.run(words, env=env, umask=umask, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Built:
    """One commit of the tree and what was built from it: the sdist, and from that the wheel."""

    tree: Path
    commit: str
    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    # Short, because a Unix socket's path is.
    path = Path(tempfile.mkdtemp(prefix="gq", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def built(folder: Path) -> Built:
    tree, out = folder / "tree", folder / "dist"
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED, symlinks=True)
    git(tree, "init", "--quiet")
    commit = commit_all(tree)
    build(tree, out)
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(tree, commit, wheel, sdist)
