from __future__ import annotations

import logging
import re
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuq.observe import log


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in log._TALKATIVE}
    yield
    logging.captureWarnings(False)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


def test_a_record_is_one_line_with_utc_milliseconds(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    log.set_up("info", file)
    logging.getLogger("gpuq.engine").info("job %d\nstarted", 7)
    (line,) = file.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO  gpuq\.engine: job 7\\n started", line)


def test_a_traceback_stays_within_its_line(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    log.set_up("error", file)
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("gpuq").exception("failed")
    (line,) = file.read_text().splitlines()
    assert "ValueError: bad" in line


def test_the_level_decides_what_is_written(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    log.set_up("warning", file)
    logging.getLogger("gpuq").info("small talk")
    logging.getLogger("gpuq").warning("disk is full")
    assert [line.split(": ", 1)[1] for line in file.read_text().splitlines()] == ["disk is full"]


def test_timers_and_requests_are_quiet_except_at_debug(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    log.set_up("info", file)
    logging.getLogger("apscheduler.executors.default").info("Running job")
    logging.getLogger("uvicorn.access").info("GET /healthz")
    logging.getLogger("uvicorn.error").info("Started server")
    assert [line.split(": ", 1)[1] for line in file.read_text().splitlines()] == ["Started server"]
    log.set_up("debug", file)
    logging.getLogger("uvicorn.access").info("GET /healthz")
    assert "GET /healthz" in file.read_text()


def test_setting_up_twice_writes_once(tmp_path: Path) -> None:
    log.set_up("info", tmp_path / "first.log")
    log.set_up("info", tmp_path / "second.log")
    logging.getLogger("gpuq").info("hello")
    assert (tmp_path / "first.log").read_text() == ""
    assert len((tmp_path / "second.log").read_text().splitlines()) == 1


def test_the_file_is_private_and_survives_rotation(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    log.set_up("info", file)
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    file.rename(tmp_path / "daemon.log.1")
    logging.getLogger("gpuq").info("after rotation")
    assert "after rotation" in file.read_text()


def test_python_warnings_go_to_the_log(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    log.set_up("info", file)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old setting", UserWarning, stacklevel=1)
    assert "old setting" in file.read_text()


def test_without_a_file_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    logging.getLogger("gpuq").info("hello")
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.endswith("INFO  gpuq: hello\n")
