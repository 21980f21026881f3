from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from gpuq.domain.caller import Caller, Scope
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.engine.access import require_token_rights
from gpuq.engine.accounts import Accounts
from gpuq.errors import Forbidden, Unavailable
from gpuq.server.routes import questions


def submit(caller: Any, **fields: Any) -> int:
    return int(caller.post("/jobs", json={"command": ["true"], "cwd": "/", **fields}).json()["id"])


@pytest.mark.usefixtures("as_root")
def test_the_caller_is_told_who_he_is(api: Any) -> None:
    assert api.daemon.get("/whoami").json() == {"user": "daemon", "uid": 1, "admin": False}
    assert api.root.get("/whoami").json() == {"user": "root", "uid": 0, "admin": True}


@pytest.mark.usefixtures("as_a_user")
def test_the_daemons_own_user_is_its_administrator(api: Any) -> None:
    assert api.caller(4242).get("/whoami").json()["admin"] is True
    assert api.daemon.get("/whoami").json()["admin"] is False
    assert api.root.get("/whoami").json()["admin"] is True


def test_health_answers_while_redis_and_agent_are_away(api: Any) -> None:
    assert api.daemon.get("/healthz").json()["status"] == "ok"
    answer = api.daemon.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["database"]["ok"] is True
    assert checks["redis"]["ok"] is False
    assert checks["agent"]["ok"] is False


def test_stats_count_the_jobs(api: Any, start: Callable[..., Any]) -> None:
    start(submit(api.daemon))
    submit(api.daemon)
    stats = api.daemon.get("/stats").json()
    assert (stats["jobs"]["running"], stats["jobs"]["queued"]) == (1, 1)


def test_metrics_are_a_page_for_prometheus(api: Any, start: Callable[..., Any]) -> None:
    run = start(submit(api.daemon))
    run.end(Outcome.EXIT_NONZERO, JobState.DELAYED, exit_code=3)
    submit(api.daemon)
    answer = api.daemon.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'gpuq_jobs{state="queued"} 1.0' in lines
    assert 'gpuq_attempts_finished_total{outcome="exit_nonzero"} 1.0' in lines
    assert 'gpuq_queue_wait_seconds_bucket{le="+Inf"} 1.0' in lines
    assert 'gpuq_gpus{state="free"} 4.0' in lines
    assert 'gpuq_waiting_jobs{priority="normal"} 2.0' in lines
    assert 'gpuq_user_waiting_jobs{user="daemon"} 2.0' in lines
    assert "gpuq_stuck_jobs 0.0" in lines
    running = start(submit(api.bin, gpus=1))
    lines = api.daemon.get("/metrics").text.splitlines()
    assert f'gpuq_gpu_holder_info{{gpu="0",job_id="{running.job_id}",user="bin"}} 1.0' in lines
    assert 'gpuq_user_gpus{user="bin"} 1.0' in lines


def test_metrics_of_an_empty_record_are_a_page_too(api: Any) -> None:
    assert 'gpuq_jobs{state="queued"} 0.0' in api.daemon.get("/metrics").text.splitlines()


def test_sql_reads_and_never_writes(api: Any) -> None:
    job_id = submit(api.daemon, name="seen")
    table = api.root.post("/sql", json={"query": "SELECT id, name FROM job_history"}).json()
    assert table == {"columns": ["id", "name"], "rows": [[job_id, "seen"]]}
    for statement in ("DELETE FROM jobs", "UPDATE jobs SET state = 'x'", "DROP VIEW job_history", "SELECT 1; SELECT 2"):
        answer = api.root.post("/sql", json={"query": statement})
        assert answer.status_code in {409, 422}, statement
    assert api.root.post("/sql", json={"query": "SELECT nonsense FROM job_history"}).status_code == 422
    assert api.root.post("/sql", json={"query": ""}).status_code == 422
    limited = api.root.post("/sql", json={"query": "SELECT id FROM job_events UNION ALL SELECT 9", "limit": 1}).json()
    assert len(limited["rows"]) == 1


def test_long_questions_cannot_take_every_thread(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = questions.Places(at_once=2, of_a_user=1)
    monkeypatch.setattr(questions, "PLACES", places)
    real, answers = api.ctx.history.ask, []

    def ask_in_mid_question(*args: Any, **more: Any) -> Any:
        with pytest.raises(Unavailable, match="root has 1"), places.asking("root"):
            answers.append("a second one of the same user")
        with places.asking("bin"), pytest.raises(Unavailable, match="2 questions"), places.asking("daemon"):
            answers.append("a third one")
        return real(*args, **more)

    monkeypatch.setattr(api.ctx.history, "ask", ask_in_mid_question)
    for _ in range(2):
        assert api.root.post("/sql", json={"query": "SELECT 1"}).status_code == 200
        assert api.root.post("/sql", json={"query": "SELECT nonsense"}).status_code == 422
    assert answers == []


def test_an_answer_that_is_not_fetched_keeps_its_users_place_alone(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = questions.Places(at_once=1, of_a_user=1)
    monkeypatch.setattr(questions, "PLACES", places)
    answer = questions.run_sql(api.ctx, Caller("alice"), questions.Sql(query="SELECT 1"))
    with pytest.raises(Unavailable, match="alice has 1"):
        places.take("alice")
    with places.asking("bob"):
        pass

    async def gone(message: Any) -> None:
        raise OSError("the client is gone")

    async def nothing() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        api.runner.run(answer({"type": "http", "asgi": {"spec_version": "2.4"}}, nothing, gone))
    with places.asking("alice"):
        pass


@pytest.mark.usefixtures("as_root")
def test_sql_shows_neither_environments_nor_tokens(api: Any) -> None:
    submit(api.daemon, env={"MARK": "not-for-others"})
    api.root.post("/tokens", json={"name": "t"})
    for statement in (
        "SELECT spec FROM jobs",
        "SELECT * FROM jobs",
        "SELECT * FROM tokens",
        "SELECT hash FROM tokens",
        "SELECT * FROM (SELECT * FROM jobs)",
        "WITH x AS (SELECT * FROM jobs) SELECT * FROM x",
    ):
        answer = api.bin.post("/sql", json={"query": statement})
        assert answer.status_code in {403, 409, 422}, statement
        assert "not-for-others" not in answer.text


@pytest.mark.usefixtures("as_root")
def test_tokens_are_made_listed_and_revoked_by_their_owners(api: Any) -> None:
    made = api.daemon.post("/tokens", json={"name": "laptop"})
    assert made.status_code == 201
    token = made.json()
    assert token["user"] == "daemon"
    listed = api.daemon.get("/tokens")
    assert [row["id"] for row in listed.json()] == [token["id"]]
    assert token["token"] not in listed.text
    assert api.bin.get("/tokens").json() == []
    assert api.bin.post("/tokens", json={"name": "x", "user": "daemon"}).status_code == 403
    assert api.bin.delete(f"/tokens/{token['id']}").status_code == 403
    assert api.caller(None, Authorization=f"Bearer {token['token']}").get("/whoami").json()["user"] == "daemon"
    assert api.daemon.delete(f"/tokens/{token['id']}").json()["revoked"] is True
    assert api.caller(None, Authorization=f"Bearer {token['token']}").get("/whoami").status_code == 401
    assert api.root.delete("/tokens/999").status_code == 404


@pytest.mark.usefixtures("as_root")
def test_a_token_gives_exactly_its_users_rights(api: Any) -> None:
    secret = api.root.post("/tokens", json={"name": "t", "user": "bin"}).json()["token"]
    bearer = api.caller(None, Authorization=f"Bearer {secret}")
    assert bearer.get("/whoami").json() == {"user": "bin", "uid": 2, "admin": False}
    job = bearer.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()
    assert job["user"] == "bin"
    assert bearer.delete(f"/jobs/{submit(api.daemon)}").status_code == 403


@pytest.mark.usefixtures("as_root")
def test_a_name_without_an_account_gets_no_token_on_a_daemon_of_roots(api: Any) -> None:
    answer = api.root.post("/tokens", json={"name": "t", "user": "no-such-user"})
    assert answer.status_code == 403
    assert "no account" in answer.json()["error"]["message"]
    # Made through the socket by a uid that a user namespace lends, it would be one of a name that nobody has.
    assert api.caller(165540).post("/tokens", json={"name": "t"}).status_code == 403
    assert api.root.get("/tokens").json() == []


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(("method", "path"), [("GET", "/whoami"), ("GET", "/jobs"), ("POST", "/jobs")])
def test_a_token_whose_account_has_gone_opens_nothing_on_a_daemon_of_roots(api: Any, method: str, path: str) -> None:
    _, secret = api.ctx.tokens.create("gone", "t", api.ctx.clock.now())
    caller = api.caller(None, Authorization=f"Bearer {secret}")
    answer = caller.request(method, path, json={"command": ["id"], "gpus": 0, "cwd": "/"} if method == "POST" else None)
    assert answer.status_code == 403
    assert "gone has no account" in answer.json()["error"]["message"]
    assert api.root.get("/jobs").json() == []


@pytest.mark.usefixtures("as_a_user")
def test_on_a_users_own_daemon_a_token_may_name_anybody(api: Any) -> None:
    _, secret = api.ctx.tokens.create("guest", "t", api.ctx.clock.now())
    whoami = api.caller(None, Authorization=f"Bearer {secret}").get("/whoami").json()
    assert whoami == {"user": "guest", "uid": None, "admin": False}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic cm9vdDo=", "bearer \xff"])
@pytest.mark.parametrize("path", ["/jobs", "/healthz", "/openapi.json", "/metrics", "/no-such-path"])
def test_without_a_socket_peer_every_path_wants_a_token(api: Any, header: str | None, path: str) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = api.caller(None).get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "unauthenticated"


@pytest.mark.usefixtures("as_root")
def test_only_an_administrator_shuts_the_daemon_down(api: Any) -> None:
    assert api.daemon.post("/shutdown").status_code == 403
    assert api.shutdowns == []
    assert api.root.post("/shutdown").status_code == 202
    assert api.root.post("/shutdown", json={"stop_jobs": True}).json() == {"stopping": True, "stop_jobs": True}
    assert api.shutdowns == [False, True]
    assert api.root.post("/shutdown", json={"stop": True}).status_code == 422


@pytest.mark.usefixtures("as_root")
def test_a_uid_without_an_account_may_ask_whether_the_process_lives_and_nothing_else(api: Any) -> None:
    lent = api.caller(165540)
    for path in ("/whoami", "/jobs", "/queue", "/readyz", "/metrics", "/openapi.json", "/no-such-path"):
        answer = lent.get(path)
        assert answer.status_code == 403, path
        assert "uid:165540 has no account on this machine" in answer.json()["error"]["message"]
    assert lent.post("/jobs", json={"command": ["id"], "cwd": "/"}).status_code == 403
    assert lent.get("/healthz").status_code == 200
    assert lent.post("/healthz").status_code == 403


@pytest.mark.usefixtures("as_a_user")
def test_on_a_users_own_daemon_nobody_is_asked_for_an_account(api: Any) -> None:
    who = api.caller(165540).get("/whoami").json()
    assert who == {"user": "uid:165540", "uid": 165540, "admin": False}
    job = api.caller(165540).post("/jobs", json={"command": ["id"], "cwd": "/"})
    assert job.status_code == 201


def bearer(api: Any, secret: str) -> Any:
    return api.caller(None, Authorization=f"Bearer {secret}")


@pytest.mark.usefixtures("as_root")
def test_a_token_is_good_for_its_scope_until_its_end_and_for_the_uid_that_it_was_made_for(api: Any) -> None:
    spec = {"command": ["true"], "cwd": "/"}
    made = api.root.post("/tokens", json={"name": "t", "scope": "read"}).json()
    reads = bearer(api, made["token"])
    assert reads.get("/jobs").status_code == 200
    refused = reads.post("/jobs", json=spec)
    assert refused.status_code == 403
    assert refused.json()["error"]["message"].count("`read`") == 1
    assert "--scope submit" in refused.json()["error"]["hint"]
    submits = bearer(api, api.root.post("/tokens", json={"name": "t"}).json()["token"])
    assert submits.post("/jobs", json=spec).status_code == 201
    assert submits.get("/whoami").json()["admin"] is False
    assert submits.post("/queue/pause").status_code == 403
    whole = bearer(api, api.root.post("/tokens", json={"name": "t", "scope": "admin"}).json()["token"])
    assert whole.post("/queue/pause").status_code == 200
    assert whole.post("/tokens", json={"name": "t"}).status_code == 403
    at = api.ctx.clock.now()
    _, over = api.ctx.tokens.create("bin", "t", at - 10, uid=2, expires_at=at - 1)
    refused = bearer(api, over).get("/jobs")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "expired at" in refused.json()["error"]["message"]
    _, other = api.ctx.tokens.create("bin", "t", at, uid=4)
    refused = bearer(api, other).get("/jobs")
    assert refused.status_code == 403
    assert "the account bin has uid 2 now, and had 4" in refused.json()["error"]["message"]


def test_an_administrator_makes_tokens_for_himself_alone() -> None:
    owner = Accounts(0)
    chief = Caller("daemon", 1, 1, admin=True)
    require_token_rights(owner, chief, "daemon", endless=False)
    for user, endless in (("root", False), ("bin", False), ("daemon", True)):
        with pytest.raises(Forbidden, match="only root"):
            require_token_rights(owner, chief, user, endless=endless)
    require_token_rights(owner, Caller("root", 0, 0, admin=True), "bin", endless=True)
    # Not with the rights of root in this call.
    with pytest.raises(Forbidden):
        require_token_rights(owner, Caller("root", 0, 0, scope=Scope.ADMIN), "root", endless=False)


@pytest.mark.parametrize(("daemon_uid", "scope"), [(0, "submit"), (1, "admin")])
def test_a_token_is_for_submissions_on_a_daemon_of_roots_and_a_login_on_anothers(
    api: Any, daemon_uid: int, scope: str
) -> None:
    api.ctx.accounts.daemon_uid = daemon_uid
    made = api.daemon.post("/tokens", json={"name": "t"}).json()
    assert (made["user"], made["scope"]) == ("daemon", scope)
    assert bearer(api, made["token"]).get("/whoami").json()["admin"] is (scope == "admin")
    assert [row["scope"] for row in api.daemon.get("/tokens").json()] == [scope]
