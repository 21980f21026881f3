"""Completion in a real bash, and in the protocol that zsh and fish speak."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BIN = str(Path(sys.executable).parent)
INSTALL = 'eval "$(_GPUQ_COMPLETE=source_bash gpuq)"'
# Calls what Tab calls, with the words of the line; "$@" because a word may be empty.
TAB = '_gpuq_completion gpuq; printf "%s\\n" "${COMPREPLY[@]}"'
EVIL = "x$(touch pwned)`touch pwned`'\";touch pwned;*"


@pytest.fixture(scope="module")
def queue(make_boxes: Callable[..., Any]) -> Any:
    """Job 1 runs, 2 is held under a name that shells would love, 3 has ended."""
    box = make_boxes()
    box.up()
    box.submit("-n", "train", "--group", "nlp", "-t", "1h", "--", "sleep", "600")
    box.submit("-n", EVIL, "--hold", "--", "true")
    box.submit("-g", "0", "--", "true")
    box.gpuq("wait", "3")
    box.until_state(1, "running")
    return box


def environment(box: Any) -> dict[str, str]:
    return {**box.env, "PATH": f"{BIN}:{box.env['PATH']}", "TERM": "dumb"}


def bash(box: Any, *lines: tuple[str, ...]) -> list[list[str]]:
    """What Tab offers behind each of the lines, in one bash."""
    script = [INSTALL]
    for words in lines:
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
        script.append(f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); {TAB}; echo ---")
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(script)], env=environment(box), cwd=box.home, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return [[row for row in part.split("\n") if row] for part in done.stdout.split("---\n")[:-1]]


OFFERED: dict[tuple[str, ...], list[str]] = {
    ("gpuq", "log"): ["logs"],
    ("gpuq", "gpus", ""): ["drain", "undrain"],
    ("gpuq", "logs", ""): ["3", "2", "1"],
    ("gpuq", "cancel", ""): ["2", "1"],
    ("gpuq", "cancel", "1", ""): ["2"],
    ("gpuq", "cancel", "1,"): ["1,2"],
    ("gpuq", "release", ""): ["2"],
    ("gpuq", "requeue", ""): ["1"],
    ("gpuq", "submit", "--after", ""): ["3", "2", "1"],
    ("gpuq", "status", "-s", "ru"): ["running"],
    ("gpuq", "status", "--state", "=", "ru"): ["running"],
    ("gpuq", "status", "--state=ru"): ["--state=running"],
    ("gpuq", "status", "-s", "running,st"): ["running,starting", "running,stopping"],
    ("gpuq", "submit", "-p", "h"): ["high"],
    ("gpuq", "submit", "--group", ""): ["nlp"],
    ("gpuq", "status", "--us"): ["--user"],
    ("gpuq", "gpus", "drain", ""): ["0", "1", "2", "3"],
    ("gpuq", "submit", "--gpu-ids", "0,"): ["0,1", "0,2", "0,3"],
    ("gpuq", "report", "w"): ["waits"],
    # Nothing of ours: bash goes on with the names of files.
    ("gpuq", "submit", "-g", "1", "--", ""): [],
    ("gpuq", "submit", "python", ""): [],
    ("gpuq", "nonsense", ""): [],
    ("gpuq", "logs", "'"): [],
}


def test_bash_is_offered_what_may_stand_there(queue: Any) -> None:
    assert dict(zip(OFFERED, bash(queue, *OFFERED), strict=True)) == OFFERED


def test_users_are_offered(queue: Any) -> None:
    assert bash(queue, ("gpuq", "status", "-u", "")) == [[queue.show(1)["user"]]]


def test_tab_completes_the_only_job_and_files_behind_two_dashes(queue: Any, tmp_path: Path) -> None:
    (tmp_path / "only-file.py").touch()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**environment(queue), "PS1": "ready> "})
    seen = b""

    def until(pattern: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 30
        while not re.search(pattern, seen):
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096)

    try:
        until(b"ready> ")
        os.write(terminal, INSTALL.encode() + b"; echo do''ne\n")
        until(b"done\r\nready> ")
        seen = b""
        os.write(terminal, b"gpuq release \t")
        until(rb"gpuq release 2 ")
        seen = b""
        os.write(terminal, b"\x15gpuq submit -- only\t")
        until(rb"gpuq submit -- only-file\.py ")
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def ask(box: Any, shell: str, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(box), "_GPUQ_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, **more}
    return subprocess.run(["gpuq"], env=env, cwd=box.home, capture_output=True, text=True, timeout=60, check=False)


def test_zsh_and_fish_see_state_and_name_beside_an_id_and_nothing_that_they_would_carry_out(queue: Any) -> None:
    user = queue.show(1)["user"]
    zsh = ask(queue, "zsh", "gpuq cancel ").stdout
    assert zsh.startswith("_arguments '*: :((")
    assert f'"1":"running train of {user}"' in zsh
    assert zsh.count("'") == 2
    assert not set("$`;*\\") & set(zsh.replace("'*: :", ""))
    fish = ask(queue, "fish", "gpuq cancel ", _TYPER_COMPLETE_FISH_ACTION="get-args").stdout
    assert f"1\trunning train of {user}\n" in fish
    assert not set("$`;*'\"") & set(fish)
    assert ask(queue, "zsh", "gpuq submit -- ").stdout == "_files"
    for line, code in (("gpuq cancel ", 0), ("gpuq submit -- ", 1)):
        assert ask(queue, "fish", line, _TYPER_COMPLETE_FISH_ACTION="is-args").returncode == code
    assert not (queue.home / "pwned").exists()


def test_nothing_heavy_is_imported_for_a_tab(queue: Any) -> None:
    program = "import sys; from gpuq.cli.__main__ import main; sys.exit(main([]))"
    env = {**environment(queue), "_GPUQ_COMPLETE": "complete_bash", "COMP_WORDS": "gpuq\nlogs\n", "COMP_CWORD": "2"}
    # Without a config file: reading one takes tomllib.
    env.pop("GPUQ_CONFIG", None)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["3", "2", "1"]
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert (
        imported & {"typer", "click", "ssl", "dataclasses", "inspect", "shlex", "subprocess", "gpuq.settings"} == set()
    )


def test_without_a_daemon_tab_is_silent(make_box: Callable[..., Any]) -> None:
    away = make_box()
    offered = bash(away, ("gpuq", "logs", ""), ("gpuq", "gpus", "drain", ""), ("gpuq", "sta"))
    assert offered == [[], [], ["status"]]
    assert not (away.home / "gpuq.db").exists()


def test_a_broken_config_file_is_no_matter_for_a_tab(make_box: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("nonsense = = 1")
    away = make_box(GPUQ_CONFIG=str(tmp_path / "config.toml"))
    assert bash(away, ("gpuq", "logs", ""), ("gpuq", "logs", "-"))[0] == []
