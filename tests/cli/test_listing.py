from __future__ import annotations

import json
from typing import Any

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, failure, job

NOW_RUNNING = job(
    7, state="running", name="bert", gpus=2, gpu_indices=[0, 1], progress=0.42, started_at="2026-11-22T10:00:00.000Z"
)
STOPPING = job(8, state="stopping", started_at="2026-11-22T10:00:00.000Z", stop_deadline="2126-11-22T10:00:30.000Z")
NEXT = job(
    9, position=1, estimated_start="2030-01-01T12:30:00.000Z", reason={"code": "Resources", "text": "needs 4, 2 free"}
)


def queue_of(*jobs: Any, total: int | None = None, paused: Any = None) -> Answer:
    numbers = {"running": 2, "queued": 1, "waiting": 9998, "total": len(jobs) if total is None else total}
    return Answer(200, {**numbers, "paused": paused, "jobs": list(jobs)})


def test_status_shows_place_reason_and_estimated_start(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", queue_of(NOW_RUNNING, STOPPING, NEXT))
    done = gpuq("status")
    assert (done.code, done.err) == (0, "")
    header, running, stopping, waiting, totals = done.out.splitlines()
    assert header.split()[:4] == ["ID", "STATE", "USER", "PRIO"]
    assert "gpu 0,1, 42%" in running
    assert "killed in" in stopping
    assert "~2030-01-01 12:30" in waiting
    assert waiting.endswith("Resources: needs 4, 2 free")
    assert waiting.split()[6] == "1"
    assert totals == "2 running, 9,998 waiting"


def test_a_job_that_outgrew_its_request_stands_out(gpuq: Gpuq, daemon: StubDaemon) -> None:
    grown = {**NOW_RUNNING, "gpu_mem_mb": 9216, "peak_gpu_mem_mb": 12288}
    within = {**NOW_RUNNING, "id": 8, "gpu_mem_mb": 9216, "peak_gpu_mem_mb": 9000}
    daemon.on("GET", "/queue", queue_of(grown, within))
    _, first, second, _ = gpuq("status").out.splitlines()
    assert "gpu 0,1, uses 12.0G of 9.0G asked for, 42%" in first
    assert "asked for" not in second
    daemon.on("GET", "/jobs/7", Answer(200, {**grown, "attempts": [], "events": []}))
    assert "uses 12.0G of 9.0G asked for" in gpuq("show", "7").out


def test_status_asks_for_fifty_and_says_what_it_left_out(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", queue_of(*(job(number) for number in range(50)), total=10_000))
    done = gpuq("status")
    assert daemon.seen("GET", "/queue")[0].query == {"limit": "50", "arrays": "one"}
    assert done.out.splitlines()[-1].endswith("50 of 10,000 shown; --limit or --all")


@pytest.mark.parametrize(("words", "limit"), [(["-a"], None), (["--limit", "7"], "7"), (["--json"], None)])
def test_status_asks_for_as_many_as_wanted(gpuq: Gpuq, daemon: StubDaemon, words: list[str], limit: str | None) -> None:
    daemon.on("GET", "/queue", queue_of())
    gpuq("status", *words)
    assert daemon.seen("GET", "/queue")[0].query.get("limit") == limit


def test_the_footer_of_one_users_jobs_says_whose_they_are(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", queue_of(NOW_RUNNING, NEXT))
    assert gpuq("status", "-u", "alice").out.splitlines()[-1] == "2 jobs of alice; 2 running, 9,998 waiting in all"
    daemon.on("GET", "/queue", queue_of(NOW_RUNNING))
    assert gpuq("status", "-u", "alice").out.splitlines()[-1].startswith("1 job of alice; ")


@pytest.mark.parametrize(
    ("state", "event", "said"),
    [
        ("stopping", ("running", "stopping", "cancel: wrong data: x; SIGKILL after 30 s"), "by bob: wrong data: x"),
        ("cancelled", ("running", "stopping", "cancel; SIGKILL after 30 s"), "by bob"),
        ("cancelled", ("queued", "cancelled", "not needed"), "by bob: not needed"),
        ("cancelled", ("held", "cancelled", "cancelled while waiting"), "by bob"),
    ],
)
def test_show_says_who_cancelled_a_job_and_why(
    gpuq: Gpuq, daemon: StubDaemon, state: str, event: tuple[str, str, str], said: str
) -> None:
    at = "2026-11-22T10:00:00.000Z"
    source, target, detail = event
    events = [{"at": at, "from_state": source, "to_state": target, "actor": "bob", "detail": detail}]
    if state != target:
        ended = {"at": at, "from_state": target, "to_state": state, "actor": "gpuq", "detail": "cancelled"}
        events.append(ended)
    found = job(7, state=state, finished_at=at if state == "cancelled" else None, attempts=[], events=events)
    daemon.on("GET", "/jobs/7", Answer(200, found))
    [line] = [line for line in gpuq("show", "7").out.splitlines() if line.startswith("Cancelled")]
    assert line.split(None, 1)[1] == said


def test_paused_queue_says_so(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", queue_of(paused={"by": "root", "reason": "new driver", "at": "2026-11-22T10:00:00Z"}))
    assert gpuq("status").out.endswith("the queue is paused by root: new driver\n")


def test_status_of_named_jobs_keeps_their_order(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs", Answer(200, [job(7), job(9)]))
    done = gpuq("status", "9,7", "--json")
    assert daemon.seen("GET", "/jobs")[0].query["ids"] == "9,7"
    assert [found["id"] for found in json.loads(done.out)] == [9, 7]


def test_filters_are_given_to_the_daemon(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/whoami", Answer(200, {"user": "alice", "uid": 1, "admin": False}))
    old = [job(9, position=2), job(10, position=1), NOW_RUNNING]
    daemon.on("GET", "/queue", Answer(200, {**queue_of(NOW_RUNNING, job(10), job(9)).body, "arrays": {}}))
    done = gpuq("status", "--me", "-s", "queued,running", "-g", "nlp", "--json")
    query = daemon.seen("GET", "/queue")[0].query
    assert (query["user"], query["state"], query["group"]) == ("alice", "queued,running", "nlp")
    assert [found["id"] for found in json.loads(done.out)] == [7, 10, 9]
    # A daemon of the release before would give the whole queue.
    daemon.on("GET", "/queue", queue_of(job(1)))
    daemon.on("GET", "/jobs", Answer(200, old))
    done = gpuq("status", "--me", "-s", "queued,running", "-g", "nlp", "--json")
    query = daemon.seen("GET", "/jobs")[0].query
    assert (query["user"], query["state"], query["group"]) == ("alice", "queued,running", "nlp")
    assert [found["id"] for found in json.loads(done.out)] == [7, 10, 9]


def test_array_elements_show_their_index(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", queue_of(job(12, array_id=10, array_index=2)))
    assert "10_2" in gpuq("status").out


def test_last_is_the_callers_newest_job(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/whoami", Answer(200, {"user": "alice", "uid": 1, "admin": False}))
    asked_for: list[dict[str, str]] = []

    def newest(asked: Any) -> Answer:
        asked_for.append(dict(asked.query))
        return Answer(200, [job(5000)])

    daemon.on("GET", "/jobs", newest)
    daemon.on("GET", "/jobs/5000", Answer(200, {**job(5000), "attempts": [], "events": []}))
    assert json.loads(gpuq("show", "last", "--json").out)["id"] == 5000
    assert asked_for == [{"user": "alice", "newest_first": "true", "limit": "1"}]


def test_status_all_shows_finished_jobs_after_the_queue(gpuq: Gpuq, daemon: StubDaemon) -> None:
    queue = {"running": 0, "queued": 1, "waiting": 1, "total": 1, "jobs": [job(9)]}
    daemon.on("GET", "/queue", Answer(200, queue))
    daemon.on("GET", "/history", Answer(200, [job(5), job(4)]))
    assert [found["id"] for found in json.loads(gpuq("status", "-a", "--json").out)] == [9, 5, 4]
    assert [found["id"] for found in json.loads(gpuq("status", "--json").out)] == [9]


@pytest.mark.parametrize(
    ("line", "method", "path", "answer"),
    [
        ("status", "GET", "/queue", {"running": 0, "queued": 0, "waiting": 0, "total": 0, "jobs": []}),
        ("show 7", "GET", "/jobs/7", {**NOW_RUNNING, "attempts": [], "events": []}),
        ("why 7", "GET", "/jobs/7/why", {"id": 7, "state": "queued", "reason": None, "reasons": []}),
        ("gpus", "GET", "/gpus", []),
        ("history", "GET", "/history", []),
        ("dlq list", "GET", "/dlq", []),
        ("report usage", "GET", "/report/usage", {"columns": ["user"], "rows": [["alice"]]}),
        ("sql select", "POST", "/sql", {"columns": ["n"], "rows": [[1], [None]]}),
        ("token list", "GET", "/tokens", []),
        ("cancel 7", "DELETE", "/jobs/7", NOW_RUNNING),
    ],
)
def test_json_is_one_document_and_nothing_else(
    gpuq: Gpuq, daemon: StubDaemon, line: str, method: str, path: str, answer: Any
) -> None:
    daemon.on(method, path, Answer(200, answer))
    done = gpuq(*line.split(), "--json")
    assert (done.code, done.err) == (0, "")
    json.loads(done.out)


def test_a_daemon_of_the_previous_release_makes_and_lists_tokens_for_this_command(
    gpuq: Gpuq, daemon: StubDaemon
) -> None:
    """It runs on until somebody restarts it, and says nothing of scope and end."""
    made = {"id": 3, "name": "laptop", "user": "alice", "created_at": "2026-11-28T07:30:59.000Z"}
    daemon.on("POST", "/tokens", Answer(201, {**made, "token": "gpuq_x"}))
    daemon.on("GET", "/tokens", Answer(200, [{**made, "last_used_at": None, "revoked_at": None}]))
    done = gpuq("token", "create", "laptop")
    assert (done.code, done.out) == (0, "gpuq_x\n")
    assert done.err.splitlines()[0] == "gpuq: token 3 (laptop) for alice; it is not shown again."
    listed = " ".join(gpuq("token", "list").out.splitlines()[1].split())
    assert listed == "3 laptop alice 2026-11-28 07:30:59 never"


def test_settings_as_json_hide_the_token(gpuq: Gpuq) -> None:
    done = gpuq("config", "--json", GPUQ_TOKEN="s3cret", GPUQ_DATABASE_URL="postgresql+psycopg://u:pw@h/db")
    assert "s3cret" not in done.out
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert rows["database_url"]["value"] == "postgresql+psycopg://u:***@h/db"
    assert rows["database_url"]["source"] == "environment"
    assert rows["lease_ttl"] == {"name": "lease_ttl", "variable": "GPUQ_LEASE_TTL", "value": 30.0, "source": "default"}


def test_csv_of_a_query(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("POST", "/sql", Answer(200, {"columns": ["a", "b"], "rows": [[1, "x,y"], [None, 2.5]]}))
    assert gpuq("sql", "select 1", "--csv").out == 'a,b\n1,"x,y"\n,2.5\n'


def test_control_characters_of_a_name_do_not_reach_the_terminal(gpuq: Gpuq, daemon: StubDaemon) -> None:
    evil = job(7, reason={"code": "Resources", "text": "\x1b[2Jgone"}, command=["true", "\x1b[31m"])
    daemon.on("GET", "/queue", queue_of(evil))
    daemon.on("GET", "/jobs/7", Answer(200, {**evil, "attempts": [], "events": []}))
    assert "\x1b" not in gpuq("status").out
    assert "\x1b" not in gpuq("show", "7").out


ODD = "\x1b]0;x\x07\x9b31m\u202e"


@pytest.mark.parametrize(
    "words",
    ["wait 7", "cancel 7", "hold 7", "top 7", "update 7 --name new", "submit --test-only true", "show 8", "status"],
)
def test_nor_do_those_of_what_is_told_of_a_job_or_of_an_error(gpuq: Gpuq, daemon: StubDaemon, words: str) -> None:
    evil = job(
        7, name=f"n{ODD}", state="failed", outcome="launch_error", error=f"no {ODD}\njob 8 is yours",
        finished_at="2026-11-22T10:00:09.000Z", reason={"code": "Dependency", "text": ODD},
    )  # fmt: skip
    daemon.on("GET", "/jobs", Answer(200, [evil]))
    daemon.on("DELETE", "/jobs/7", Answer(200, evil))
    daemon.on("PATCH", "/jobs/7", Answer(200, evil))
    for verb in ("hold", "top"):
        daemon.on("POST", f"/jobs/7/{verb}", Answer(200, evil))
    refusal = failure("conflict", f"the key {ODD} is taken", f"ask {ODD}")
    daemon.on("POST", "/jobs/check", Answer(409, refusal))
    daemon.on("GET", "/jobs/8", Answer(404, refusal))
    daemon.on("GET", "/queue", queue_of(paused={"by": "root", "reason": ODD, "at": None}))
    done = gpuq(*words.split())
    said = done.out + done.err
    assert "?" in said
    assert [char for char in said if not char.isprintable() and char != "\n"] == []
    assert "\njob 8" not in said


def test_gpus_name_their_holders(gpuq: Gpuq, daemon: StubDaemon) -> None:
    base = {
        "uuid": "GPU-1", "model": "A100", "memory_mb": 40960, "used_mb": 1024, "utilisation": 0.5,
        "temperature_c": 40, "power_w": 99.5, "reason": None, "jobs": [], "processes": [],
    }  # fmt: skip
    foreign = {"pid": 311, "user": "bob", "command": "python", "mem_mb": 900}
    rows = [
        {**base, "index": 0, "state": "leased", "jobs": [{"id": 7, "user": "alice", "gpu_mem_mb": None}]},
        {**base, "index": 1, "state": "external", "processes": [foreign]},
        {**base, "index": 2, "state": "drained", "reason": {"code": "GpuUnhealthy", "text": "drained by root: fan"}},
    ]
    daemon.on("GET", "/gpus", Answer(200, rows))
    out = gpuq("gpus").out
    assert "job 7 (alice)" in out
    assert "bob pid 311 python" in out
    assert "drained by root: fan" in out
    assert "1.0G/40.0G" in out


def test_closed_pipe_is_exit_141_without_a_word(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", queue_of(*(job(number, name="x" * 24) for number in range(5000))))
    process = gpuq.popen("status", "--limit", "5000")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (141, b"")
