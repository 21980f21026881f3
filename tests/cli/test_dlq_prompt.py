"""`gpuq dlq retry` with no ID asks for each dead letter, on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, failure, job

QUESTION = "[r]etry, [d]elete, [s]kip, [q]uit? "


def letter(job_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "job_id": job_id, "name": "train", "user": "alice", "failed_at": "2026-11-22T10:00:00.000Z",
        "outcome": "exit_nonzero", "error": f"exit code {job_id}", "attempts": 4, "log_tail": "last words\n", **changes,
    }  # fmt: skip


class Terminal:
    """The command on a pseudo-terminal: what it said, and its exit code."""

    def __init__(self, gpuq: Gpuq, *words: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gpuq.cli", *words], env={**gpuq.env, "NO_COLOR": "1"}, cwd=gpuq.work,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.said = ""

    def until(self, text: str) -> None:
        """Reads up to and with `text`, which was not read before."""
        seen = len(self.said)
        while text not in self.said[seen:]:
            self._read(text)

    def _read(self, wanted: str) -> None:
        try:
            piece = os.read(self._master, 4096)
        except OSError:
            piece = b""
        assert piece, f"{wanted!r} never came:\n{self.said}"
        self.said += piece.decode().replace("\r\n", "\n")

    def answer(self, *answers: str) -> None:
        for text in answers:
            self.until(QUESTION)
            os.write(self._master, f"{text}\n".encode())

    def end_of_file(self) -> None:
        self.until(QUESTION)
        os.write(self._master, b"\x04")

    def close(self) -> int:
        """Reads to the end; the exit code."""
        while True:
            try:
                piece = os.read(self._master, 4096)
            except OSError:
                break
            if not piece:
                break
            self.said += piece.decode().replace("\r\n", "\n")
        os.close(self._master)
        return self._process.wait(60)


@pytest.fixture
def asked(gpuq: Gpuq, daemon: StubDaemon) -> Callable[[], Terminal]:
    daemon.on("GET", "/dlq", Answer(200, [letter(7), letter(8), letter(9)]))
    for job_id in (7, 8, 9):
        daemon.on("POST", f"/dlq/{job_id}/retry", Answer(200, job(job_id)))
        daemon.on("DELETE", f"/dlq/{job_id}", Answer(200, {"removed": job_id}))
    return lambda: Terminal(gpuq, "dlq", "retry")


def changes(daemon: StubDaemon) -> list[tuple[str, str]]:
    return [(one.method, one.path) for one in daemon.asked if one.method != "GET"]


def test_each_letter_is_shown_and_done_with_as_the_answer_says(
    asked: Callable[[], Terminal], daemon: StubDaemon
) -> None:
    terminal = asked()
    terminal.answer("r", "d", "s")
    assert terminal.close() == 0
    assert changes(daemon) == [("POST", "/dlq/7/retry"), ("DELETE", "/dlq/8")]
    assert "job 7 (train) of alice failed at" in terminal.said
    assert "after 4 attempts: exit_nonzero" in terminal.said
    assert "  exit code 8" in terminal.said
    assert "  | last words" in terminal.said
    assert "job 7 is queued" in terminal.said
    assert "dead letter 8 is gone" in terminal.said


@pytest.mark.parametrize("word", ["RETRY", " retry please"])
def test_a_whole_word_is_understood(asked: Callable[[], Terminal], daemon: StubDaemon, word: str) -> None:
    terminal = asked()
    terminal.answer(word, "q")
    assert terminal.close() == 0
    assert changes(daemon) == [("POST", "/dlq/7/retry")]


def test_quit_leaves_the_rest_as_it_is(asked: Callable[[], Terminal], daemon: StubDaemon) -> None:
    terminal = asked()
    terminal.answer("d", "q")
    assert terminal.close() == 0
    assert changes(daemon) == [("DELETE", "/dlq/7")]
    assert "exit code 9" not in terminal.said


@pytest.mark.parametrize("word", ["", "?", "yes", "n"])
def test_what_is_no_answer_changes_nothing_and_is_asked_again(
    asked: Callable[[], Terminal], daemon: StubDaemon, word: str
) -> None:
    terminal = asked()
    terminal.answer(word, "s", "q")
    assert terminal.close() == 0
    assert changes(daemon) == []
    assert terminal.said.count(QUESTION) == 3
    assert terminal.said.count("answer with one of the letters r, d, s, q\n") == 1
    # Asked about the same letter again, and then about the next.
    assert "exit code 8" in terminal.said
    assert "exit code 9" not in terminal.said


def test_the_end_of_the_input_is_quit(asked: Callable[[], Terminal], daemon: StubDaemon) -> None:
    terminal = asked()
    terminal.end_of_file()
    assert terminal.close() == 0
    assert changes(daemon) == []


def test_a_letter_that_somebody_else_has_dealt_with_is_no_failure(
    asked: Callable[[], Terminal], daemon: StubDaemon
) -> None:
    gone = failure("not_found", "job 7 is not in the dead-letter queue")
    daemon.on("POST", "/dlq/7/retry", Answer(404, gone))
    terminal = asked()
    terminal.answer("r", "r", "q")
    assert terminal.close() == 0
    assert "job 7 is not in the dead-letter queue" in terminal.said
    assert "job 8 is queued" in terminal.said


def test_a_letter_of_somebody_else_is_told_and_the_next_is_asked_for(
    asked: Callable[[], Terminal], daemon: StubDaemon
) -> None:
    refusal = failure("forbidden", "job 7 belongs to bob; alice may not retry it", "ask its owner")
    daemon.on("POST", "/dlq/7/retry", Answer(403, refusal))
    terminal = asked()
    terminal.answer("r", "d", "q")
    assert terminal.close() == 4
    assert "job 7 belongs to bob" in terminal.said
    assert "dead letter 8 is gone" in terminal.said


def test_no_dead_letters_is_said_and_no_terminal_is_a_usage_error(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/dlq", Answer(200, []))
    terminal = Terminal(gpuq, "dlq", "retry")
    assert terminal.close() == 0
    assert terminal.said == "no dead letters\n"
    done = gpuq("dlq", "retry")
    assert done.code == 2
    assert "asking needs a terminal" in done.err


def test_control_characters_of_the_output_do_not_reach_the_terminal(gpuq: Gpuq, daemon: StubDaemon) -> None:
    evil = letter(7, error="\x1b[2Jgone", log_tail="\x1b]0;title\x07\n", name="\x1b[31m")
    daemon.on("GET", "/dlq", Answer(200, [evil]))
    terminal = Terminal(gpuq, "dlq", "retry")
    terminal.answer("s")
    assert terminal.close() == 0
    assert "\x1b" not in terminal.said
