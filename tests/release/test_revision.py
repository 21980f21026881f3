"""The commit that `gpuq --version` names, and what is run to find it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from distributions import CLEAN, commit_all, git

from gpuq import __version__, revision
from gpuq.cli.__main__ import main


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[Path, str]:
    """A repository with one commit, and the commit's first digits."""
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "file").write_text("one\n")
    return root, commit_all(root)


def test_the_commit_of_a_clean_checkout_is_named(checkout: tuple[Path, str]) -> None:
    root, commit = checkout
    assert re.fullmatch("[0-9a-f]{10}", commit)
    assert revision.of_checkout(str(root)) == commit


@pytest.mark.parametrize("name", ["file", "new"])
def test_a_changed_file_and_a_new_one_make_it_dirty(checkout: tuple[Path, str], name: str) -> None:
    root, commit = checkout
    (root / name).write_text("two\n")
    assert revision.of_checkout(str(root)) == f"{commit}+dirty"


def test_a_linked_working_tree_names_its_own_commit(checkout: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = checkout
    git(root, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    (tmp_path / "linked" / "file").write_text("two\n")
    commit = commit_all(tmp_path / "linked")
    assert revision.of_checkout(str(tmp_path / "linked")) == commit


def test_a_folder_inside_a_repository_is_no_checkout(checkout: tuple[Path, str]) -> None:
    root, _ = checkout
    inside = root / "inside"
    (inside / ".git").mkdir(parents=True)
    assert revision.of_checkout(str(inside)) is None
    (inside / ".git").rmdir()
    assert revision.of_checkout(str(inside)) is None


def test_a_repository_without_a_commit_names_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    assert revision.of_checkout(str(tmp_path)) is None


def test_without_git_the_commit_is_not_known(
    checkout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision.of_checkout(str(checkout[0])) is None


def test_inside_a_hook_of_another_repository_the_own_commit_is_named(
    checkout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, commit = checkout
    git(tmp_path, "init", "--quiet", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert revision.of_checkout(str(root)) == commit


def tripwire(root: Path, git: Path) -> Path:
    """Puts a program in the place of `git`; the file that it leaves when it is run."""
    git.write_text(f"#!/bin/sh\ntouch {root / 'tripped'}\n")
    git.chmod(git.stat().st_mode | stat.S_IXUSR)
    return root / "tripped"


def test_git_does_not_run_in_a_repository_of_another_user(
    checkout: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    tripped = tripwire(tmp_path, tmp_path / "bin" / "git")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    revision.of_checkout(str(checkout[0]))
    assert tripped.exists()
    tripped.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert revision.of_checkout(str(checkout[0])) is None
    assert not tripped.exists()


def test_the_program_that_a_repository_names_as_its_monitor_is_not_run(
    checkout: tuple[Path, str], tmp_path: Path
) -> None:
    root, commit = checkout
    tripped = tripwire(tmp_path, tmp_path / "monitor")
    git(root, "config", "core.fsmonitor", str(tmp_path / "monitor"))
    git(root, "status")
    assert tripped.exists()
    tripped.unlink()
    assert revision.of_checkout(str(root)) == commit
    assert not tripped.exists()


def test_a_note_is_read_and_an_unreadable_one_is_none(tmp_path: Path) -> None:
    assert revision.noted(str(tmp_path)) is None
    (tmp_path / "_revision.txt").write_text("1a2b3c4d5e\n")
    assert revision.noted(str(tmp_path)) == "1a2b3c4d5e"
    (tmp_path / "_revision.txt").write_bytes(b"\xff")
    assert revision.noted(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("found", "line"),
    [("1a2b3c4d5e", f"gpuq {__version__} (1a2b3c4d5e)\n"), (None, f"gpuq {__version__}\n")],
)
def test_the_version_is_one_line(
    found: str | None, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "revision", lambda: found)
    assert main(["--version"]) == 0
    # Read by typer.
    assert main(["--version", "status"]) == 0
    assert capsys.readouterr().out == line * 2


def test_the_version_takes_neither_typer_nor_the_commands() -> None:
    program = "import sys; from gpuq.cli.__main__ import main; sys.exit(main(['--version']))"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], env=CLEAN, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "gpuq.revision" in imported
    assert (
        imported & {"typer", "gpuq.cli.parse.command_table", "gpuq.client", "pydantic", "importlib.metadata"} == set()
    )
