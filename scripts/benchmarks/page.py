"""The page: what each view costs with a hundred thousand jobs in line, and what open pages cost while nothing
happens."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
from daemon import Daemon, daemon, spec
from stats import Figure, median, noise

VIEWS = {
    "now": "/",
    "now, of one user": "/?user={user}",
    "lanes": "/ui/lanes",
    "job": "/ui/jobs/1",
    "history": "/ui/history",
    "dead letters": "/ui/dead",
    "reports": "/ui/reports",
    "admin": "/ui/admin",
}
OPEN_PAGES = 50


def page(rounds: int, seconds: float, jobs: int = 100_000) -> list[Figure]:
    """First paint of every view, from the request to its last byte; then pages that stand open."""
    port = _free_port()
    with daemon(gpus=4) as box:
        box.gpuq("down")
        box.gpuq("up", "-d", "--listen", f"127.0.0.1:{port}")
        client = box.client()
        for first in range(0, jobs, 50_000):
            client.submit_many([spec("sleep", "600", name=f"job-{first + n}", gpus=1 + n % 4) for n in range(50_000)])
        before = _resident_mb(box)
        with closing(_browser(box, port)) as browser:
            figures = _views(browser, client.call("GET", "/whoami")["user"], rounds)
            figures.append(Figure("page: memory", _resident_mb(box) - before, "MB", "the daemon's, for all of these"))
            figures += _open_pages(box, browser, seconds)
        client.close()
    return figures


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _browser(box: Daemon, port: int) -> httpx.Client:
    base = f"http://127.0.0.1:{port}"
    with box.client() as client:
        code = client.call("POST", "/login-links")["path"].partition("#")[2]
    limits = httpx.Limits(max_connections=2 * OPEN_PAGES)
    ours = {"Origin": base, "Sec-Fetch-Site": "same-origin"}
    browser = httpx.Client(base_url=base, headers=ours, limits=limits, timeout=60)
    if browser.post("/ui/login", data={"code": code}).status_code != 303:
        raise RuntimeError("the page let nobody in")
    return browser


def _views(browser: httpx.Client, user: str, rounds: int) -> list[Figure]:
    figures = []
    for name, path in VIEWS.items():
        times = []
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            answer = browser.get(path.format(user=user))
            times.append((time.perf_counter() - begin) * 1e3)
            answer.raise_for_status()
        size = f"{len(answer.content) / 1000:.0f} kB"
        figures.append(Figure(f"page: {name}", median(times[1:]), "ms", f"100,000 jobs wait; {size}", noise(times[1:])))
    return figures


def _open_pages(box: Daemon, browser: httpx.Client, seconds: float) -> list[Figure]:
    told: list[float] = []
    over = threading.Event()

    def watch() -> None:
        with browser.stream("GET", "/ui/stream", timeout=None) as stream:
            for line in stream.iter_lines():
                if line.startswith("event: changed"):
                    told.append(time.perf_counter())
                if over.is_set():
                    return

    with ExitStack() as stack:
        for _ in range(OPEN_PAGES):
            thread = threading.Thread(target=watch)
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        time.sleep(2)
        share = _share_of_a_core(box, seconds)
        told.clear()
        with box.client() as client:
            begin = time.perf_counter()
            client.call("POST", "/jobs/100000/hold")
            time.sleep(2)
            heard = [moment - begin for moment in told]
            over.set()
            # One more change, so that each stream has a line to end at.
            client.call("POST", "/jobs/100000/release")
    if len(heard) < OPEN_PAGES:
        raise RuntimeError(f"only {len(heard)} of {OPEN_PAGES} pages were told within two seconds")
    return [
        Figure("page: processor", share * 100, "% of a core", f"{OPEN_PAGES} open pages over {seconds:g} s"),
        Figure("page: told", max(heard) * 1e3, "ms", f"from a change's request to the last of {OPEN_PAGES} pages"),
    ]


def _share_of_a_core(box: Daemon, seconds: float) -> float:
    clock = (~box.pid() << 3) | 2
    used, begin = time.clock_gettime(clock), time.monotonic()
    time.sleep(seconds)
    return (time.clock_gettime(clock) - used) / (time.monotonic() - begin)


def _resident_mb(box: Daemon) -> float:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{box.pid()}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
