"""The page without a browser: who gets in, what is refused, and what stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.server.pages.log_painter import MAX_LINE, LogPainter
from gpuq.server.pages.render import HEADERS

VIEWS = ["/", "/ui/lanes", "/ui/history", "/ui/dead", "/ui/submit", "/ui/reports", "/ui/admin", "/ui/jobs/1"]
OURS = {"Origin": "http://gpuq", "Sec-Fetch-Site": "same-origin"}
HOSTILE = "<script>alert(1)</script>\u202e'\"&"


def submit(client: httpx.Client, **fields: Any) -> int:
    answer = client.post("/jobs", json={"command": ["true"], "cwd": "/", "gpus": 0, **fields})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def link(client: httpx.Client) -> str:
    answer = client.post("/login-links")
    assert answer.status_code == 201, answer.text
    path, _, code = answer.json()["path"].partition("#")
    assert path == "/ui/login"
    return str(code)


def log_in(api: Any, who: httpx.Client, **given: str) -> httpx.Client:
    """A browser that is logged in as `who`, over TCP."""
    browser: httpx.Client = api.caller(None, **OURS)
    answer = browser.post("/ui/login", data=given or {"code": link(who)})
    assert answer.status_code == 303, answer.text
    return browser


# -- getting in ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize("uid", [0, None])
def test_without_a_login_every_view_leads_to_the_form_whoever_the_peer_is(api: Any, path: str, uid: int | None) -> None:
    answer = api.caller(uid).get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/ui/login")


def test_a_link_logs_in_once(api: Any) -> None:
    code = link(api.daemon)
    first = api.caller(None, **OURS)
    answer = first.post("/ui/login", data={"code": code, "back": "/ui/history?user=x"})
    assert answer.headers["location"] == "/ui/history?user=x"
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/"))
    assert "secure" not in cookie
    assert "daemon" in first.get("/").text
    again = api.caller(None, **OURS).post("/ui/login", data={"code": code})
    assert again.status_code == 401
    assert "gpuq web" in again.text


def test_behind_https_the_cookie_is_for_https_alone(api: Any) -> None:
    browser = api.caller(None, Origin="https://gpuq", **{"Sec-Fetch-Site": "same-origin"})
    answer = browser.post("/ui/login", data={"code": link(api.root)})
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_a_link_is_good_for_a_minute(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = link(api.root)
    later = api.ctx.clock.now() + 61
    monkeypatch.setattr(type(api.ctx.clock), "now", lambda self: later)
    assert api.caller(None, **OURS).post("/ui/login", data={"code": code}).status_code == 401


def test_a_session_is_over_after_twelve_idle_hours_and_after_a_week(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = api.ctx.clock.now()
    browser = log_in(api, api.root)
    now = [start]
    monkeypatch.setattr(type(api.ctx.clock), "now", lambda self: now[0])
    for day in range(6):
        for hours in (0, 11, 22):
            now[0] = start + day * 86400 + hours * 3600
            assert browser.get("/").status_code == 200, (day, hours)
    for hours in (24 * 6 + 8, 24 * 6 + 19):
        now[0] = start + hours * 3600
        assert browser.get("/").status_code == 200
    now[0] = start + 7 * 86400 + 1
    assert browser.get("/").status_code == 303
    now[0] = start
    idle = log_in(api, api.root)
    now[0] = start + 12 * 3600 + 1
    assert idle.get("/").status_code == 303


def test_a_token_gives_a_session_that_ends_with_it_and_has_no_more_rights(api: Any) -> None:
    made = api.root.post("/tokens", json={"name": "t", "scope": "read"}).json()
    browser = log_in(api, api.root, token=made["token"])
    job_id = submit(api.root)
    assert "administrator" not in browser.get("/").text
    refused = browser.post(f"/ui/jobs/{job_id}/hold")
    assert refused.status_code == 403
    assert "scope" in refused.text
    assert f'action="/ui/jobs/{job_id}/hold"' not in browser.get(f"/ui/jobs/{job_id}").text
    api.root.delete(f"/tokens/{made['id']}")
    assert browser.get("/").status_code == 303


def test_a_wrong_token_is_refused_in_words(api: Any) -> None:
    answer = api.caller(None, **OURS).post("/ui/login", data={"token": "gpuq_wrong"})
    assert answer.status_code == 401
    assert "unknown or revoked" in answer.text


def test_the_cookie_is_nothing_to_the_api(api: Any) -> None:
    browser = log_in(api, api.root)
    assert browser.get("/queue").status_code == 401


def test_sessions_are_listed_and_ended_by_their_owner(api: Any, as_root: None) -> None:
    mine, other = log_in(api, api.daemon), log_in(api, api.bin)
    listed = api.daemon.get("/sessions").json()
    assert [one["user"] for one in listed] == ["daemon"]
    assert {one["user"] for one in api.root.get("/sessions").json()} == {"daemon", "bin"}
    theirs = next(one["id"] for one in api.root.get("/sessions").json() if one["user"] == "bin")
    assert api.daemon.delete(f"/sessions/{theirs}").status_code == 403
    assert mine.post("/ui/admin/end-session", data={"session": str(theirs)}).status_code == 403
    assert other.get("/").status_code == 200
    assert api.daemon.delete(f"/sessions/{listed[0]['id']}").json() == {"id": listed[0]["id"], "ended": True}
    assert mine.get("/").status_code == 303
    other.post("/ui/logout")
    assert other.get("/").status_code == 303
    assert api.root.delete("/sessions/999").status_code == 404


def test_an_account_that_is_gone_takes_its_sessions_along(api: Any, as_root: None) -> None:
    browser = log_in(api, api.daemon)
    api.ctx.accounts.why_not = lambda user, uid: f"{user} has no account here"
    answer = browser.get("/")
    assert answer.status_code == 403
    assert "no account" in answer.text


# -- pages of others -----------------------------------------------------------------------------------------


def test_a_form_that_names_no_page_is_refused(api: Any) -> None:
    browser = log_in(api, api.root)
    job_id = submit(api.root)
    for name in OURS:
        del browser.headers[name]
    assert browser.post(f"/ui/jobs/{job_id}/hold").status_code == 403
    assert api.root.get(f"/jobs/{job_id}").json()["state"] == "queued"


def test_a_link_in_a_mail_asks_again_from_our_own_page(api: Any) -> None:
    answer = api.caller(None, **{"Sec-Fetch-Site": "cross-site"}).get("/ui/jobs/1")
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1", "x" * 3000]
)
def test_a_login_leads_to_no_other_site(api: Any, back: str) -> None:
    answer = api.caller(None, **OURS).post("/ui/login", data={"code": link(api.root), "back": back})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("path", [*VIEWS, "/ui/login", "/ui/nothing", "/ui/static/app.js", "/ui/static/../render.py"])
def test_every_answer_keeps_foreign_scripts_frames_and_caches_out(api: Any, path: str) -> None:
    submit(api.root)
    answer = log_in(api, api.root).get(path)
    for name in set(HEADERS) - {"Cache-Control"}:
        assert answer.headers[name] == HEADERS[name], name
    assert "access-control-allow-origin" not in answer.headers


# -- what stands there ---------------------------------------------------------------------------------------


def test_names_commands_and_output_of_strangers_stay_text(api: Any, start: Callable[..., Any]) -> None:
    job_id = submit(api.root, name="<b>&", command=["echo", HOSTILE])
    run = start(job_id)
    run.log.write_bytes(b"\x1b[31m<img src=x>\x1b[0m\n\xff\xfe \x1b]8;;http://evil\x07link\x1b]8;;\x07\n10%\r50%\r99%")
    browser = log_in(api, api.root)
    for path in ("/", f"/ui/jobs/{job_id}"):
        text = browser.get(path).text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "<b>&" not in text
        assert "\u202e" not in text
    assert '<span class="f1">&lt;img src=x&gt;</span>' in text
    assert "evil" not in text.split('class="log"')[1]


def test_the_first_page_tells_who_holds_a_gpu_and_why_a_job_waits(api: Any, start: Callable[..., Any]) -> None:
    holder = submit(api.daemon, gpus=1, name="holder")
    start(holder, (3,))
    submit(api.root, gpus=2, name="waits")
    api.root.post("/queue/pause", json={"reason": "new driver"})
    text = log_in(api, api.daemon).get("/").text
    card = text.split('id="gpu-3"')[1].split("</li>")[0]
    assert f'href="/ui/jobs/{holder}"' in card
    assert "daemon" in card
    assert "new driver" in text
    assert "No agent runs" in text
    assert "waits" in text


def test_lists_are_filtered_by_their_address_and_paged(api: Any) -> None:
    api.root.post("/jobs", json=[{"command": ["true"], "cwd": "/", "gpus": 0, "name": f"j{i}"} for i in range(120)])
    browser = log_in(api, api.root)
    text = browser.get("/").text
    assert len(re.findall(r'<tr id="job-', text)) == 50
    more = re.search(r'<a href="(/\?after_id=\d+)">Further', text)
    assert more
    assert len(re.findall(r'<tr id="job-', browser.get(more[1]).text)) == 50
    assert len(re.findall(r'<tr id="job-', browser.get("/?name=j7").text)) == 1
    assert len(text) < 60_000
    assert browser.get("/?state=nonsense").status_code == 422


def test_history_has_pages_and_a_table_that_no_spreadsheet_runs(api: Any) -> None:
    api.root.post("/jobs", json=[{"command": ["x"], "cwd": "/", "gpus": 0, "name": "=1+1"} for _ in range(101)])
    for job_id in range(1, 102):
        api.root.delete(f"/jobs/{job_id}")
    browser = log_in(api, api.root)
    text = browser.get("/ui/history?state=cancelled").text
    assert len(re.findall(r'<tr id="job-', text)) == 100
    more = re.search(r'<a href="([^"]+)">Earlier', text)
    assert more
    assert len(re.findall(r'<tr id="job-', browser.get(more[1].replace("&amp;", "&")).text)) == 1
    table = browser.get("/ui/history.csv?state=cancelled")
    assert table.headers["content-type"].startswith("text/csv")
    assert len(table.text.splitlines()) == 102
    assert ",'=1+1," in table.text
    assert browser.get("/ui/history?since=2000-01-01&until=2000-01-02").text.count('<tr id="job-') == 0
    assert browser.get("/ui/history?since=soon").status_code == 422


def test_the_middle_alone_is_asked_for_again_and_not_sent_twice(api: Any) -> None:
    submit(api.root)
    browser = log_in(api, api.root)
    first = browser.get("/", headers={"X-Gpuq-Part": "main"})
    assert "<html" not in first.text
    assert 'id="job-1"' in first.text
    tag = first.headers["etag"]
    assert browser.get("/", headers={"X-Gpuq-Part": "main", "If-None-Match": tag}).status_code == 304
    submit(api.root)
    assert browser.get("/", headers={"X-Gpuq-Part": "main", "If-None-Match": tag}).status_code == 200
    assert api.caller(None).get("/", headers={"X-Gpuq-Part": "main"}).status_code == 401


# -- what can be done ----------------------------------------------------------------------------------------


def test_a_job_is_submitted_checked_and_cloned_by_a_form(api: Any) -> None:
    browser = log_in(api, api.root)
    given = {"command": "echo 'a b'", "cwd": "/", "gpus": "0", "time": "2h", "env": "A=1\nB=x=y", "name": "form"}
    assert "could be queued" in browser.post("/ui/submit", data={**given, "check": "yes"}).text
    assert api.root.get("/jobs").json() == []
    answer = browser.post("/ui/submit", data=given)
    assert answer.headers["location"] == "/ui/jobs/1"
    job = api.root.get("/jobs/1").json()
    assert (job["command"], job["time_limit_s"], job["name"], job["user"]) == (["echo", "a b"], 7200, "form", "root")
    form = browser.get("/ui/submit?like=1").text
    assert "echo &#39;a b&#39;" in form
    browser.post("/ui/submit", data={**given, "env": "", "like": "1", "name": "again"})
    with api.ctx.records.read() as tx:
        assert tx.spec(2)[0].env["B"] == "x=y"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("command", "echo 'a", "cannot be read"),
        ("command", "", "what shall be run"),
        ("gpus", "many", "no number"),
        ("time", "soon", "soon"),
        ("env", "novalue", "NAME=VALUE"),
        ("priority", "urgent", "urgent"),
        ("like", "77", "77"),
    ],
)
def test_what_is_wrong_with_a_form_is_said_and_the_rest_of_it_kept(
    api: Any, field: str, value: str, words: str
) -> None:
    given = {"command": "true", "cwd": "/", "gpus": "0", "name": "kept", field: value}
    answer = log_in(api, api.root).post("/ui/submit", data=given)
    assert 400 <= answer.status_code < 500
    assert words in answer.text
    assert 'value="kept"' in answer.text


def test_what_cannot_be_undone_is_asked_about_and_names_the_job(api: Any, start: Callable[..., Any]) -> None:
    job_id = submit(api.root, name="precious")
    browser = log_in(api, api.root)
    asked = browser.post(f"/ui/jobs/{job_id}/cancel")
    assert "precious" in asked.text
    assert api.root.get(f"/jobs/{job_id}").json()["state"] == "queued"
    assert browser.post(f"/ui/jobs/{job_id}/cancel", data={"sure": "yes"}).status_code == 303
    assert api.root.get(f"/jobs/{job_id}").json()["state"] == "cancelled"
    browser.post(f"/ui/jobs/{job_id}/retry")
    assert api.root.get(f"/jobs/{job_id}").json()["state"] == "queued"
    browser.post(f"/ui/jobs/{job_id}/hold")
    assert api.root.get(f"/jobs/{job_id}").json()["state"] == "held"
    browser.post(f"/ui/jobs/{job_id}/release")
    browser.post(f"/ui/jobs/{job_id}/priority", data={"priority": "high"})
    assert api.root.get(f"/jobs/{job_id}").json()["priority"] == "high"
    assert browser.post(f"/ui/jobs/{job_id}/explode").status_code == 404


def test_nobody_acts_on_or_reads_what_is_not_his(api: Any, as_root: None, start: Callable[..., Any]) -> None:
    job_id = submit(api.root)
    run = start(job_id)
    run.log.write_text("secret\n")
    stranger = log_in(api, api.bin)
    page = stranger.get(f"/ui/jobs/{job_id}").text
    assert "secret" not in page
    assert f'action="/ui/jobs/{job_id}/cancel"' not in page
    for verb in ("cancel", "kill", "requeue"):
        assert stranger.post(f"/ui/jobs/{job_id}/{verb}", data={"sure": "yes"}).status_code == 403
    assert stranger.get(f"/ui/jobs/{job_id}/log").status_code == 403
    assert stranger.get(f"/ui/jobs/{job_id}/log/stream").status_code == 403
    assert stranger.post("/ui/admin/pause").status_code == 403
    assert stranger.post("/ui/admin/drain", data={"gpu": "0"}).status_code == 403
    assert stranger.post("/ui/submit", data={"command": "id", "cwd": "/", "gpus": "0"}).status_code == 303
    assert api.root.get("/jobs/2").json()["user"] == "bin"


def test_an_administrator_pauses_and_drains(api: Any) -> None:
    browser = log_in(api, api.root)
    browser.post("/ui/admin/pause", data={"reason": "<new> driver"})
    assert "&lt;new&gt; driver" in browser.get("/ui/admin").text
    browser.post("/ui/admin/resume")
    browser.post("/ui/admin/drain", data={"gpu": "2", "reason": "fan"})
    assert api.root.get("/gpus").json()[2]["state"] == "drained"
    browser.post("/ui/admin/undrain", data={"gpu": "2"})
    assert api.root.get("/gpus").json()[2]["state"] == "free"
    assert browser.post("/ui/admin/drain", data={"gpu": "x"}).status_code == 422


def test_dead_letters_stand_by_cause_and_are_retried_together(api: Any, start: Callable[..., Any]) -> None:
    from gpuq.ports.records import DeadLetter

    for number in range(3):
        job_id = submit(api.root, max_retries=0)
        run = start(job_id)
        run.end(Outcome.EXIT_NONZERO, JobState.FAILED, 1)
        at = api.ctx.clock.now()
        with api.ctx.records.write() as tx:
            tail = f"step {number}\nCUDA out of memory: {number} MiB\n"
            tx.add_dead_letter(DeadLetter(job_id, at, Outcome.EXIT_NONZERO, "exit code 1", 1, tail))
    browser = log_in(api, api.root)
    text = browser.get("/ui/dead").text
    assert text.count("<section") == 1
    assert text.count('name="job"') == 3
    asked = browser.post("/ui/dead", data={"verb": "retry", "job": ["1", "3"]})
    assert "2 jobs" in asked.text
    assert browser.post("/ui/dead", data={"verb": "retry", "job": ["1", "3"], "sure": "yes"}).status_code == 303
    assert [api.root.get(f"/jobs/{one}").json()["state"] for one in (1, 2, 3)] == ["queued", "failed", "queued"]
    assert "not in the dead-letter" in browser.post("/ui/dead", data={"verb": "drop", "job": "1", "sure": "yes"}).text
    assert browser.post("/ui/dead", data={"verb": "retry"}).status_code == 422


def test_reports_are_drawn_and_told(api: Any, start: Callable[..., Any]) -> None:
    run = start(submit(api.root, gpus=1))
    run.end(Outcome.SUCCEEDED, JobState.COMPLETED)
    browser = log_in(api, api.root)
    for kind in ("usage", "waits", "failures", "utilization"):
        text = browser.get(f"/ui/reports?kind={kind}&window=all").text
        assert "<table>" in text, kind
    assert browser.get("/ui/reports?kind=nonsense").status_code == 422
    assert browser.get("/ui/reports?window=nonsense").status_code == 422


def test_without_a_database_the_page_says_so(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuq.errors import DatabaseUnavailable

    browser = log_in(api, api.root)

    def away(*_: Any) -> Any:
        raise DatabaseUnavailable("the database is away", hint="wait")

    monkeypatch.setattr(type(api.ctx.web_sessions), "find", away)
    answer = browser.get("/")
    assert answer.status_code == 503
    assert "the database is away" in answer.text


# -- output --------------------------------------------------------------------------------------------------


def test_colours_go_on_over_lines_and_pieces() -> None:
    painter = LogPainter()
    assert painter.paint("\x1b[1;32mgreen\nstill") == '<span class="f2 bold">green</span>\n'
    assert painter.tail() == '<span class="f2 bold">still</span>'
    assert painter.paint(" so\x1b[0m no\n") == '<span class="f2 bold">still so</span> no\n'
    assert painter.tail() == ""


def test_of_a_progress_bar_its_last_state_is_shown() -> None:
    painter = LogPainter()
    assert painter.paint("10%\r20%\r") == ""
    assert painter.tail() == "20%"
    assert painter.paint("100%\r\nnext\r\n") == "100%\nnext\n"


def test_a_line_without_end_is_not_kept_whole() -> None:
    painter = LogPainter()
    for _ in range(100):
        painter.paint("x" * 10_000)
    assert len(painter.tail()) < MAX_LINE + 10


def test_controls_and_turned_text_are_seen() -> None:
    painter = LogPainter()
    assert painter.paint("a\u202eb\x00c\u2066\n") == "a⟨U+202E⟩b␀c⟨U+2066⟩\n"
