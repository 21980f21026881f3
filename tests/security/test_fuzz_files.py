"""Files that are broken in every way: whoever reads one says what is wrong with it, soon, and nothing else happens.

The seed is in every failure; GPUQ_FUZZ_SEED gives another one.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuq.cli.commands import replay
from gpuq.cli.parse import script
from gpuq.client import address
from gpuq.domain.outcome import Outcome
from gpuq.errors import ConfigError, UsageError
from gpuq.gpus.simulated import SimulatedGpus
from gpuq.scheduler.simulate import simulate
from gpuq.settings import load
from gpuq.supervise import bundle, crash_record
from gpuq.supervise.ladder import Ladder
from gpuq.supervise.launch import ForkServerLauncher
from gpuq.supervise.spawn import AttemptSpec, signal_number

SEED = os.environ.get("GPUQ_FUZZ_SEED", "20261128")
SECONDS = 5

DEEP = "[" * 20_000 + "]" * 20_000
ODD_BYTES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n",
    b'"',
    b"'",
    b"\\",
    b"{",
    b"[",
    b"]",
    b",",
    b"=",
    b";",
    b"9" * 5000,
    b"-",
    b"1e999",
    b"NaN",
    b"null",
    b"x" * 70_000,
    b"\x1f\x8b",
    b"#GPUQ ",
    b"#",
    b"\\u0000",
    b"\\ud800",
    DEEP.encode(),
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**300,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "9" * 5000,
    "a\0b",
    "\u202e",
    "日本",
    "\n",
    [],
    {},
    [[]],
    {"x": {}},
    ["a"],
    [None],
    {"": ""},
    "1" * 70_000,
)


class TooSlow(BaseException):
    """Nothing in between may take it for an error of its own."""


@contextlib.contextmanager
def soon(what: object) -> Iterator[None]:
    """Ends what does not end by itself, and says what it was."""

    def ring(signum: int, frame: object) -> None:
        raise TooSlow(f"no answer within {SECONDS} s: {what!r}"[:2000])

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def broken(rng: random.Random, data: bytes) -> bytes:
    """A good file with one to four things done to it."""
    for _ in range(rng.randint(1, 4)):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        to = min(to, at + 40)
        odd = rng.choice(ODD_BYTES)
        data = rng.choice(
            (
                data[:at] + odd + data[at:],
                data[:at] + odd + data[to:],
                data[:at] + data[to:],
                data[:to] + data[at:],
                data[:at],
            )
        )
    return data


def changed(rng: random.Random, document: Any) -> Any:
    """A copy of a document with another value at one to three places."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.randint(1, 3)):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.6:
                place = place[key]
                continue
            if rng.random() < 0.1 and isinstance(place, dict):
                place[rng.choice(("zzz", "", "env", "x" * 3000))] = place.pop(key)
            else:
                place[key] = copy.deepcopy(rng.choice(ODD_VALUES))
            break
    return document


def as_file(rng: random.Random, document: Any) -> bytes:
    """A JSON document, changed, and sometimes broken too."""
    data = json.dumps(changed(rng, document), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return broken(rng, data) if rng.random() < 0.4 else data


def inputs(what: str, count: int) -> Iterator[tuple[str, random.Random]]:
    for number in range(count):
        seed = f"{SEED}/{what}/{number}"
        yield seed, random.Random(seed)


CONFIG = (
    b'lease_ttl = 30\nadmins = "alice,bob"\ngpus = "sim:4x24G"\nmax_output = "20G"\n'
    b'server = "http://x:80"\ntoken = "t"\n'
)


def test_a_broken_config_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("GPUQ_CONFIG", str(path))
    for seed, rng in inputs("config", 250):
        path.write_bytes(data := broken(rng, CONFIG))
        for read in (load, address.find):
            with soon(seed):
                try:
                    read()
                except ConfigError:
                    continue
                except Exception as error:
                    raise AssertionError(f"{seed}: {data[:500]!r}") from error


SCRIPT = b"#!/bin/sh\n#GPUQ -g 2 --time 2h -n 'a name'\n#GPUQ --env A=b --gpu-mem 18G\necho \"$A\"\n"


def test_a_broken_script_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "train.sh"
    for seed, rng in inputs("script", 250):
        path.write_bytes(data := broken(rng, SCRIPT))
        with soon(seed):
            try:
                found = script.read(str(path), [], as_is=False)
                assert found is None or (found.interpreter() and found.text), seed
            except UsageError:
                continue
            except Exception as error:
                raise AssertionError(f"{seed}: {data[:500]!r}") from error


GPUS = {
    "0": {"used_mb": 9000, "utilisation": 0.7, "processes": [{"pid": 3, "mem_mb": 9, "user": "alice", "command": "x"}]},
    "1": {"problem": "Xid 79"},
    "2": {"processes": None},
}


@pytest.mark.parametrize(
    "text", [DEEP, '{"0": {"used_mb": "x"}}', '{"0": {"used_mb": NaN}}', '{"0": {"utilisation": 1e999}}']
)
def test_odd_gpus_are_not_taken_for_free_ones(tmp_path: Path, text: str) -> None:
    (tmp_path / "sim-gpus.json").write_text(text)
    for reading in SimulatedGpus("sim:2", tmp_path / "sim-gpus.json").observe(1.0):
        assert "cannot be understood" in (reading.problem or "")


def test_broken_gpus_are_unhealthy_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "sim-gpus.json"
    for seed, rng in inputs("gpus", 300):
        path.write_bytes(data := as_file(rng, GPUS))
        source = SimulatedGpus("sim:4", path)
        with soon(seed):
            try:
                readings = source.observe(1.0)
            except Exception as error:
                raise AssertionError(f"{seed}: {data[:500]!r}") from error
        for reading in readings:
            assert isinstance(reading.used_mb, int), seed
            assert 0 <= (reading.utilisation or 0) <= 1, seed
            assert reading.problem is None or isinstance(reading.problem, str), seed


TRACE = b"submit_s,duration_s,gpus,user,limit_s,priority\n" + b"".join(
    b"%d,%d,%d,u%d,%d,normal\n" % (n * 10, 50 + n, n % 3, n % 2, 90) for n in range(12)
)


def test_a_broken_trace_is_a_usage_error_and_a_good_one_is_replayed(tmp_path: Path) -> None:
    replayed = 0
    for seed, rng in inputs("trace", 200):
        data = broken(rng, TRACE)
        if rng.random() < 0.3:
            data = gzip.compress(data, 1)
            data = broken(rng, data) if rng.random() < 0.5 else data
        path = tmp_path / "trace.csv"
        path.write_bytes(data)
        with soon(seed):
            try:
                jobs = replay.read_trace(path)
                simulate(jobs, gpus=4, nodes=1, order="aged", backfill="easy", expect="exact")
                replayed += bool(jobs)
            except UsageError:
                continue
            except Exception as error:
                raise AssertionError(f"{seed}: {data[:500]!r}") from error
    assert replayed > 10


def test_what_has_no_end_is_no_trace(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(bytes(50_000_000)))
    for path in (Path("/dev/zero"), bomb):
        with soon(path), pytest.raises(UsageError, match="too long"):
            replay.read_trace(path)


RECORDS: dict[str, dict[str, Any]] = {
    bundle.SPEC: {
        "schema": 1,
        "token": "t",
        "argv": ["true"],
        "env": {"A": "b"},
        "cwd": "/",
        "uid": 5,
        "gid": 5,
        "user": "u",
        "time_limit_s": 5.0,
        "kill_grace_s": 3,
        "signal": {"name": "USR1", "before_s": 6},
        "umask": 18,
        "max_output_bytes": 9,
    },
    bundle.STARTED: {
        "schema": 1,
        "token": "t",
        "supervisor_pid": 1,
        "supervisor_start": 1,
        "pid": 2,
        "pid_start": 2,
        "started_at": 1.5,
    },
    bundle.EXIT: {
        "schema": 1,
        "token": "t",
        "outcome": "succeeded",
        "exit_code": 0,
        "signal": None,
        "error": None,
        "started_at": 1.0,
        "finished_at": 2.0,
        "stop_reason": None,
        "swept": True,
    },
    bundle.PROGRESS: {"progress": 0.5, "step": 3, "total": 6, "message": "half"},
    bundle.STOP: {"reason": "cancel", "grace_s": 3.0, "signal": "USR1", "at": 1.0},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_broken_record_is_none_or_a_value_of_the_right_kind(tmp_path: Path, name: str) -> None:
    launcher, run_dir = ForkServerLauncher(), tmp_path / "1"
    records = Path(bundle.records_of(str(run_dir)))
    run_dir.mkdir(mode=0o700)
    records.mkdir(mode=0o700)
    path = (run_dir if name == bundle.PROGRESS else records) / name
    path.touch(0o600)
    known = 0
    for seed, rng in inputs(name, 150):
        path.write_bytes(data := as_file(rng, RECORDS[name]))
        with soon(seed):
            try:
                known += _read(launcher, str(run_dir), name)
            except Exception as error:
                raise AssertionError(f"{seed}: {data[:500]!r}") from error
    assert known > 1, "hardly any was read"


def _read(launcher: ForkServerLauncher, run_dir: str, name: str) -> bool:
    """As daemon and supervisor do; whether there was a record."""
    if name == bundle.PROGRESS:
        return launcher.progress(run_dir, os.geteuid()) is not None
    record = bundle.read(bundle.records_of(run_dir), name)
    if name == bundle.SPEC:
        with contextlib.suppress(ValueError):
            spec = AttemptSpec(record or {})
            Ladder(started=1.0, time_limit_s=spec.time_limit_s, kill_grace_s=spec.kill_grace_s, notice=spec.notice)
    elif name == bundle.STARTED:
        launched = launcher.launched(run_dir, "t")
        if launched is not None and (fd := launcher.watch(launched)) is not None:
            os.close(fd)
        launcher.alive(run_dir)
        return launched is not None
    elif name == bundle.EXIT:
        result = launcher.outcome(run_dir, "t")
        assert result is None or (isinstance(result.outcome, Outcome) and abs(result.exit_code or 0) < 2**31)
        crash_record.recover({**(record or {}), "dir": f"{run_dir}/not-there"}, 1)
    elif record is not None:
        ladder = Ladder(started=1.0, time_limit_s=None, kill_grace_s=3.0)
        signum = signal_number(bundle.text(record, "signal"))
        ladder.request(2.0, bundle.text(record, "reason") or "cancel", bundle.number(record, "grace_s"), signum)
        assert (ladder.next_at() or 0) >= 0
    return record is not None


JOB = {
    "command": ["true", "x"],
    "name": "n",
    "cwd": "/",
    "env": {"K": "V"},
    "gpus": 1,
    "gpu_mem_mb": None,
    "gpu_model": None,
    "gpu_ids": [0, 1],
    "priority": "normal",
    "group": None,
    "time_limit_s": 60,
    "max_retries": 1,
    "after": [],
    "after_any": [],
    "begin": None,
    "array": None,
    "hold": True,
    "key": None,
    "preemptible": False,
    "signal": "USR1@60",
    "kill_grace_s": 5,
}


@pytest.fixture(scope="module")
def paused(make_boxes: Callable[..., Any]) -> Any:
    """A daemon in which no job ever starts."""
    box = make_boxes()
    box.up()
    box.gpuq("pause", "--reason", "fuzz")
    return box


def rows(home: Path) -> int:
    with closing(sqlite3.connect(f"file:{home}/gpuq.db?mode=ro", uri=True)) as connection:
        return int(connection.execute("select count(*) from jobs").fetchone()[0])


class _Local(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def test_a_broken_request_is_refused_and_leaves_no_row(paused: Any) -> None:
    for seed, rng in inputs("request", 250):
        one = rng.random() < 0.5
        document = JOB if one else {"env": {"A": "b"}, "jobs": [JOB, JOB]} if rng.random() < 0.5 else [JOB, JOB]
        body, before = as_file(rng, document), rows(paused.home)
        key = rng.choice(("a", "b", "x" * 300, "\x7f", seed))
        headers = {"Idempotency-Key": key} if rng.random() < 0.7 else {}
        for _ in range(2):
            with closing(_Local(str(paused.home / "gpuq.sock"))) as connection:
                # A header that cannot be is answered before the body is read.
                with contextlib.suppress(BrokenPipeError):
                    connection.request("POST", "/jobs", body, headers)
                answer = connection.getresponse()
                said = answer.read()
            where = f"{seed}: {said[:300]!r} to {body[:500]!r}"
            assert answer.status in {200, 201, 400, 403, 404, 409, 413, 422}, where
            if answer.status >= 400 and key.isprintable():
                assert json.loads(said)["error"]["message"], where
        # With a key the second answer may refuse what the first has stored: another body under the same key.
        most = 0 if answer.status in {400, 403, 404, 413, 422} else 4
        assert rows(paused.home) - before <= most, seed


def test_a_broken_file_of_jobs_is_a_usage_error_and_leaves_no_row(
    paused: Any, make_quick_cli: Callable[..., Any], tmp_path: Path
) -> None:
    cli = make_quick_cli(paused.env, tmp_path)
    path = tmp_path / "jobs.jsonl"
    for seed, rng in inputs("jsonl", 120):
        good = json.dumps(JOB).encode() + b"\n"
        path.write_bytes(data := good + as_file(rng, JOB).replace(b"\n", b" ") + b"\n" + good)
        before = rows(paused.home)
        said = cli("submit", "--from-file", str(path), "--no-check")
        assert said.wrong() is None, f"{seed}: {data[:500]!r}\n{said.err[-2000:]}"
        assert said.code is not None, f"{seed}: no answer within 5 s"
        assert (rows(paused.home) > before) == (said.code == 0), f"{seed}: {data[:500]!r}"


def test_jobs_may_come_through_a_pipe_and_what_has_no_end_is_refused(
    paused: Any, make_quick_cli: Callable[..., Any], tmp_path: Path
) -> None:
    cli = make_quick_cli(paused.env, tmp_path)
    before = rows(paused.home)
    said = cli("submit", "--from-file", "/dev/zero")
    assert said.code == 2
    assert "longer than 64 MiB" in said.err
    line = json.dumps({"command": ["true"]}).encode()
    assert cli("submit", "--from-file", "-", stdin=line).code == 0
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Open at both ends, so that neither waits for the other; a line without its end is one too.
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, line + b"\n")
    said = cli("submit", "--from-file", "/proc/self/fd/0", stdin=line)
    os.close(fd)
    assert said.code == 0
    assert rows(paused.home) == before + 2
