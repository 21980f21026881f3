"""The page in a real Chromium: what stays open while it changes, what a page of another origin can do, and whether
everybody can use it."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpuq import wiring
from gpuq.domain.job import Attempt, Launched
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import JobState
from gpuq.ports.notify import Topic
from gpuq.ports.records import Move
from gpuq.server import listen
from gpuq.server.app import create_app
from gpuq.settings import Settings

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium"),
    # The driver of the browser leaves sockets of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


# The machine may be busy with other tests.
playwright.expect.set_options(timeout=30_000)

VIEWS = [
    "/",
    "/ui/lanes",
    "/ui/jobs/1",
    "/ui/history",
    "/ui/dead",
    "/ui/submit?like=1",
    "/ui/reports?window=all",
    "/ui/admin",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
        )
        yield browser
        browser.close()


class Daemon:
    """The application on sockets, in a thread: the driver of the browser has the main one's event loop."""

    def __init__(self, home: Path) -> None:
        self.ctx = wiring.open_context(Settings(home=home, gpus="sim:4", node="testbox"))
        self.address = "127.0.0.1:0"
        self.serve()

    def serve(self) -> None:
        """At the same address again, if it has served before."""
        self.app = create_app(self.ctx)
        listeners = [listen.unix_socket(self.ctx.settings.socket_path), *listen.tcp_sockets(self.address)]
        self.url = listen.address_of(listeners[1])
        self.address = self.url.removeprefix("http://")
        self.app.state.addresses = [self.url]
        up = threading.Event()
        stops: list[Callable[[], None]] = []

        def when_up(stop: Callable[[], None]) -> None:
            stops.append(stop)
            up.set()

        self._thread = threading.Thread(target=listen.run, args=(self.app, listeners, when_up))
        self._thread.start()
        assert up.wait(10)
        self._stop = stops[0]
        transport = httpx.HTTPTransport(uds=str(self.ctx.settings.socket_path))
        # As whoever runs the tests, by the kernel's word.
        self.me = httpx.Client(transport=transport, base_url="http://localhost", timeout=30)

    def submit(self, **fields: Any) -> int:
        answer = self.me.post("/jobs", json={"command": ["true"], "cwd": "/", "gpus": 0, **fields})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    def start(self, job_id: int, gpus: tuple[int, ...]) -> Path:
        """Writes that a queued job runs; its log is a file that the test may write to."""
        at, token = self.ctx.clock.now(), f"{job_id:032x}"
        uuids = tuple(gpu.uuid for gpu in self.ctx.gpus.inventory() if gpu.index in gpus)
        run_dir = Path(self.ctx.run_dir(job_id, 1))
        run_dir.mkdir(parents=True)
        log = run_dir / "output.log"
        log.touch()
        with self.ctx.records.write() as tx:
            claimed = {"attempt": 1, "token": token}
            tx.move(Move(job_id, JobState.STARTING, frozenset({JobState.QUEUED}), "gpuq", at, set=claimed))
            tx.add_attempt(Attempt(job_id, 1, token, "testbox", "boot", gpus, uuids, None, str(run_dir), str(log), at))
        with self.ctx.records.write() as tx:
            tx.launched(job_id, 1, token, Launched(1, 1, 1, 1, at))
            came_from = frozenset({JobState.STARTING})
            tx.move(
                Move(job_id, JobState.RUNNING, came_from, "gpuq", at, attempt=1, token=token, set={"started_at": at})
            )
        self.ctx.notifier.publish(Topic.EVENTS)
        return log

    def end(self, job_id: int) -> None:
        at, token = self.ctx.clock.now(), f"{job_id:032x}"
        ended = {"outcome": Outcome.SUCCEEDED, "exit_code": 0, "finished_at": at}
        with self.ctx.records.write() as tx:
            tx.end_attempt(job_id, 1, token, Result(Outcome.SUCCEEDED, exit_code=0, finished_at=at))
            came_from = frozenset({JobState.RUNNING})
            tx.move(Move(job_id, JobState.COMPLETED, came_from, "gpuq", at, attempt=1, token=token, set=ended))
        self.ctx.notifier.publish(Topic.EVENTS)

    def stop(self) -> None:
        self.me.close()
        if self._thread.is_alive():
            self._stop()
            self._thread.join(15)
        assert not self._thread.is_alive()
        self.app.submission.close()

    def close(self) -> None:
        self.stop()
        self.ctx.launcher.close()
        self.ctx.gpus.close()
        self.ctx.records.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    made = Daemon(home)
    yield made
    made.close()


class Tab:
    """One page of a context of its own, with everything that went wrong in it."""

    def __init__(self, page: Any, base: str) -> None:
        self.page = page
        self.base = base
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("request", self._look)

    def _look(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:")):
            self.wrong.append(f"asked elsewhere: {request.url}")

    def go(self, path: str) -> None:
        self.page.goto(self.base + path)


@pytest.fixture
def open_tab(daemon: Daemon, chromium: Any) -> Iterator[Callable[..., Tab]]:
    contexts: list[Any] = []

    def open_tab(**options: Any) -> Tab:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(20_000)
        tab = Tab(context.new_page(), daemon.url)
        tab.go(daemon.me.post("/login-links").json()["path"])
        if options.get("java_script_enabled", True):
            tab.page.wait_for_url(f"{daemon.url}/")
        return tab

    yield open_tab
    for context in contexts:
        context.close()


def test_every_view_is_for_everybody_in_both_themes_and_asks_nobody_else(
    daemon: Daemon, open_tab: Callable[..., Tab]
) -> None:
    log = daemon.start(daemon.submit(gpus=1, name="<script>alert(1)</script>"), (3,))
    log.write_bytes(b"\x1b[31mred\x1b[0m \x1b[33myellow\x1b[0m <script>alert(2)</script>\n")
    daemon.submit(gpus=4)
    for scheme in ("light", "dark"):
        tab = open_tab(color_scheme=scheme)
        for path in VIEWS:
            tab.go(path)
            found = axe.Axe().run(tab.page).response["violations"]
            told = [(one["id"], [node["html"][:80] for node in one["nodes"][:2]]) for one in found]
            assert told == [], (scheme, path)
        for width in (390, 1920):
            tab.page.set_viewport_size({"width": width, "height": 800})
            for path in VIEWS:
                tab.go(path)
                wide = tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, (width, path)
        assert tab.wrong == []


def test_a_change_is_seen_and_nothing_that_is_open_closes(daemon: Daemon, open_tab: Callable[..., Tab]) -> None:
    job_id = daemon.submit(gpus=1)
    tab = open_tab()
    expect = playwright.expect
    tab.page.focus("input[name=user]")
    tab.page.keyboard.type("half a na")
    for name in ("second", "third"):
        new = daemon.submit(name=name)
        expect(tab.page.locator(f"#job-{new}")).to_contain_text(name)
    assert tab.page.input_value("input[name=user]") == "half a na"
    assert tab.page.evaluate("document.activeElement.name") == "user"
    tab.go(f"/ui/jobs/{job_id}")
    tab.page.click("#events summary")
    daemon.me.post(f"/jobs/{job_id}/hold")
    expect(tab.page.locator("h1 .state")).to_have_text("held")
    assert tab.page.evaluate("document.getElementById('events').open")
    assert tab.wrong == []


def test_output_comes_as_it_is_written(daemon: Daemon, open_tab: Callable[..., Tab]) -> None:
    job_id = daemon.submit(gpus=1)
    log = daemon.start(job_id, (0,))
    log.write_text("first\n50%\r")
    tab = open_tab()
    tab.go(f"/ui/jobs/{job_id}")
    expect = playwright.expect
    expect(tab.page.locator("pre.log .rest")).to_have_text("50%")
    with log.open("a") as more:
        more.write("99%\r\n\x1b[32mdone\x1b[0m\n")
    expect(tab.page.locator("pre.log .f2")).to_have_text("done")
    assert tab.page.inner_text("pre.log").split() == ["first", "99%", "done"]
    daemon.end(job_id)
    expect(tab.page.locator("h1 .state")).to_have_text("completed")
    assert tab.page.inner_text("pre.log").split() == ["first", "99%", "done"]


def test_with_the_keys_alone_a_job_is_submitted_and_cancelled(daemon: Daemon, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.page.keyboard.press("s")
    tab.page.wait_for_url("**/ui/submit")
    tab.page.focus("#command")
    tab.page.keyboard.type("sleep 60")
    tab.page.focus("#gpus")
    tab.page.keyboard.press("Control+a")
    tab.page.keyboard.type("0")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/ui/jobs/1")
    tab.page.focus("form[action$=cancel] button")
    tab.page.keyboard.press("Enter")
    tab.page.focus("button.danger")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url("**/ui/jobs/1")
    assert daemon.me.get("/jobs/1").json()["state"] == "cancelled"
    tab.page.keyboard.press("?")
    assert tab.page.is_visible("#keys")


def test_without_scripts_list_detail_and_cancel_work(daemon: Daemon, open_tab: Callable[..., Tab]) -> None:
    token = daemon.me.post("/tokens", json={"name": "browser", "scope": "admin"}).json()["token"]
    job_id = daemon.submit(name="plain")
    tab = open_tab(java_script_enabled=False)
    tab.page.fill("#token", token)
    tab.page.click("text=Log in >> nth=-1")
    tab.page.click("text=plain")
    tab.page.click("text=Cancel")
    tab.page.click("button.danger")
    assert daemon.me.get(f"/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_page_stands_through_the_loss_of_its_daemon_and_is_right_again_by_itself(
    daemon: Daemon, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab()
    daemon.stop()
    playwright.expect(tab.page.locator("#stale")).to_be_visible()
    daemon.serve()
    new = daemon.submit(name="meanwhile")
    playwright.expect(tab.page.locator(f"#job-{new}")).to_contain_text("meanwhile")
    playwright.expect(tab.page.locator("#stale")).to_be_hidden()


def test_eight_tabs_of_one_browser_live(daemon: Daemon, open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    others = [tab.page.context.new_page() for _ in range(7)]
    for page in others:
        page.goto(tab.base + "/")
    new = daemon.submit(name="seen")
    for page in [tab.page, *others]:
        playwright.expect(page.locator(f"#job-{new}")).to_contain_text("seen")


# -- a page of another origin -----------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A site of somebody else's, on a name and port of its own."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title><body>")

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://evil.example:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


_FORM = """([action, fields]) => {
  const form = Object.assign(document.createElement('form'), { method: 'post', action });
  for (const [name, value] of Object.entries(fields))
    form.append(Object.assign(document.createElement('input'), { name, value }));
  document.body.append(form);
  form.submit();
}"""
_FRAME = "url => document.body.append(Object.assign(document.createElement('iframe'), { src: url }))"
_FETCH = """async ([url, options]) => { try { const a = await fetch(url, options); return a.type + ' ' + a.status; }
catch (error) { return 'refused'; } }"""


def test_a_page_of_another_origin_reads_and_changes_nothing(
    daemon: Daemon, elsewhere: str, open_tab: Callable[..., Tab]
) -> None:
    job_id = daemon.submit()
    tab = open_tab()
    evil = tab.page.context.new_page()
    for path, fields in (
        (f"/ui/jobs/{job_id}/cancel", {"sure": "yes"}),
        ("/ui/submit", {"command": "id", "cwd": "/", "gpus": "0"}),
        ("/ui/admin/pause", {"reason": "evil"}),
        ("/ui/logout", {}),
    ):
        evil.goto(elsewhere)
        with evil.expect_navigation():
            evil.evaluate(_FORM, [daemon.url + path, fields])
    evil.goto(elsewhere)
    for options in ({"credentials": "include"}, {"credentials": "include", "mode": "no-cors", "method": "POST"}):
        told = evil.evaluate(_FETCH, [f"{daemon.url}/ui/jobs/{job_id}/hold", options])
        assert told in {"refused", "opaque 0"}
    assert [job["state"] for job in daemon.me.get("/jobs").json()] == ["queued"]
    assert daemon.me.get("/stats").json()["paused"] is None
    tab.go("/")
    assert tab.page.is_visible("#h-gpus")
    evil.goto(elsewhere)
    evil.evaluate(_FRAME, daemon.url)
    evil.wait_for_timeout(300)
    assert all("GPUs" not in (frame.content() or "") for frame in evil.frames[1:])
