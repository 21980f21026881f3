"""Batch scripts: what is read at the submission is what runs, whatever becomes of the file."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from stub_daemon import Answer, Asked, Gpuq, StubDaemon, job

SCRIPT = "#!/bin/bash\n#GPUQ -g 0\necho hello $1\n"


@pytest.fixture
def taking(daemon: StubDaemon) -> StubDaemon:
    def take(asked: Asked) -> Answer:
        return Answer(201, job(1, name=asked.body.get("name") or "true"))

    daemon.on("POST", "/jobs", take)
    return daemon


def sent(daemon: StubDaemon) -> Any:
    [asked] = daemon.seen("POST", "/jobs")
    return asked.body


def write(gpuq: Gpuq, name: str, text: str | bytes, mode: int = 0o644) -> None:
    path = gpuq.work / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)


@pytest.mark.parametrize("mode", [0o644, 0o755])
@pytest.mark.parametrize("text", [SCRIPT, "#!/bin/sh\necho hello\n", "echo hello\n"])
@pytest.mark.parametrize("word", ["train.sh", "./train.sh"])
def test_text_and_arguments_of_a_script_are_sent(
    gpuq: Gpuq, taking: StubDaemon, mode: int, text: str, word: str
) -> None:
    write(gpuq, "train.sh", text, mode)
    done = gpuq("submit", word, "a", "--b")
    assert done.code == 0, done.err
    body = sent(taking)
    assert (body["script"], body["command"]) == (text, [str(gpuq.work / "train.sh"), "a", "--b"])
    assert body["name"] == "train.sh"


@pytest.mark.parametrize("words", [(), ("-",), ("-", "a", "b")])
def test_script_comes_from_standard_input_too(gpuq: Gpuq, taking: StubDaemon, words: tuple[str, ...]) -> None:
    done = gpuq("submit", "-n", "mine", *words, stdin=SCRIPT)
    assert done.code == 0, done.err
    body = sent(taking)
    assert (body["script"], body["command"]) == (SCRIPT, ["stdin", *words[1:]])
    assert (body["gpus"], body["name"]) == (0, "mine")


def test_empty_standard_input_is_no_script(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "-")
    assert done.code == 2
    assert "no script on standard input" in done.err


def test_script_behind_two_dashes_that_can_be_executed_is_a_command(gpuq: Gpuq, taking: StubDaemon) -> None:
    write(gpuq, "go", "#!/bin/sh\necho hello\n", 0o755)
    assert gpuq("submit", "--", "./go", "a").code == 0
    assert "script" not in sent(taking)
    assert sent(taking)["command"] == ["./go", "a"]


def test_program_that_is_no_text_is_a_command(gpuq: Gpuq, taking: StubDaemon) -> None:
    write(gpuq, "go", b"\x7fELF\0\0", 0o755)
    write(gpuq, "packed", b"#!/bin/sh\nexit\n\0\xff" + bytes(1 << 20), 0o755)
    for word in ("./go", "./packed"):
        assert gpuq("submit", word).code == 0
    assert [asked.body.get("script") for asked in taking.seen("POST", "/jobs")] == [None, None]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SCRIPT.encode() + b"#" * (1 << 20), "longer than 1 MiB"),
        (SCRIPT.encode() + b"\xff\n", "not UTF-8"),
        (SCRIPT.encode() + b"\0\n", "not UTF-8"),
        (SCRIPT.replace("\n", "\r\n").encode(), "CR LF"),
        (b"\n\n", "it is empty"),
    ],
)
def test_what_cannot_be_kept_is_refused_in_one_line(gpuq: Gpuq, taking: StubDaemon, text: bytes, says: str) -> None:
    write(gpuq, "train.sh", text)
    done = gpuq("submit", "train.sh")
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 2
    assert taking.asked == []


def test_longest_script_is_kept(gpuq: Gpuq, taking: StubDaemon) -> None:
    write(gpuq, "train.sh", SCRIPT + "ä" * ((1 << 19) - len(SCRIPT) // 2 - 1))
    assert gpuq("submit", "train.sh").code == 0
    assert len(sent(taking)["script"].encode()) > (1 << 20) - 4


def test_interpreter_that_is_not_there_is_found_out_at_once(gpuq: Gpuq, taking: StubDaemon) -> None:
    write(gpuq, "train.sh", "#!/opt/none/bash\n")
    done = gpuq("submit", "train.sh")
    assert (done.code, taking.asked) == (2, [])
    assert "there is no program /opt/none/bash" in done.err


def test_script_of_python_imports_what_lies_beside_it(gpuq: Gpuq, taking: StubDaemon) -> None:
    write(gpuq, "train.py", "#!/usr/bin/env python3\nimport model\n")
    assert gpuq("submit", "train.py", PYTHONPATH="/opt/x").code == 0
    assert sent(taking)["env"]["PYTHONPATH"] == f"{gpuq.work}:/opt/x"


@pytest.mark.redis
def test_kept_text_runs_at_every_attempt(gpuq: Gpuq, redis_server_path: object) -> None:
    gpuq.env |= {"GPUQ_GPUS": "sim:2", "GPUQ_KILL_GRACE": "2", "GPUQ_RETRY_BASE": "0.01"}
    assert gpuq("up", "--detach").code == 0
    try:
        write(gpuq, "lib.sh", "echo sourced\n")
        text = (
            "#GPUQ -g 0 --retries 1 --hold\nsource ./lib.sh\n"
            'echo "$1 $GPUQ_ATTEMPT $PWD"\n[ "$0" = "${BASH_SOURCE[0]}" ] && [ -x "$0" ] && exit 3\n'
        )
        write(gpuq, "train.sh", text)
        assert gpuq("submit", "train.sh", "a b").code == 0
        write(gpuq, "train.sh", "echo wrong\n")
        (gpuq.work / "train.sh").unlink()
        assert gpuq("release", "1").code == 0
        assert gpuq("wait", "1").code == 3
        for number in ("1", "2"):
            assert gpuq("logs", "1", "--attempt", number).out == f"sourced\na b {number} {gpuq.work}\n"
        assert gpuq("show", "1", "--script").out == text
        told = json.loads(gpuq("show", "1", "--json").out)
        assert (told["script_bytes"], "script" in told) == (len(text), False)
        assert json.loads(gpuq("show", "1", "--json", "--script").out)["script"] == text
        kept = gpuq.home / "jobs" / "1" / "2" / "script"
        assert (kept.read_text(), os.stat(kept).st_mode & 0o777) == (text, 0o700)
        assert gpuq("run", "-g", "0", "--", "true").code == 0
        assert not (gpuq.home / "jobs" / "2" / "1" / "script").exists()
        assert "it was submitted as a command" in gpuq("show", "2", "--script").err
        # By its first line, also an interpreter with an argument; and by the API.
        line = {"command": ["mine", "x"], "script": "#!/usr/bin/env -S python3 -u\nimport sys; print(sys.argv[1])\n"}
        assert gpuq("submit", "--from-file", "-", "--wait", stdin=json.dumps({**line, "gpus": 0})).code == 0
        assert gpuq("logs", "3").out == "x\n"
        # Of `run`, standard input is the job's.
        unread = gpuq("run", stdin=text)
        assert (unread.code, "no command to run" in unread.err) == (2, True)
    finally:
        gpuq("down", "--stop-jobs")
