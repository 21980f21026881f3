"""The monitor against the server that it is made for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gpuq.client.calls import Calls

pytest.importorskip("textual", reason="the monitor needs the extra `tui`")

from gpuq.cli.commands.monitor.app import Monitor
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState


def test_the_screen_follows_the_queue_and_its_keys_change_it(served: Any, start: Callable[..., Any]) -> None:
    client = Calls(f"unix://{served.socket}")
    me = client.whoami()["user"]
    first, second, dead = (client.submit(["echo", "it"], env={}, name=name)["id"] for name in ("one", "two", "bad"))
    start(dead, (2,)).end(Outcome.EXIT_NONZERO, JobState.FAILED, exit_code=3)
    start(first, (0,)).log.write_bytes(b"step 1\nstep 2\n")

    async def story() -> None:
        app = Monitor(client, me)
        async with app.run_test(size=(120, 40), notifications=True) as pilot:

            async def sees(*texts: str) -> None:
                shown = ""
                for _ in range(1000):
                    await pilot.pause(0.01)
                    strips = app.screen._compositor.render_strips()
                    shown = "\n".join("".join(segment.text for segment in strip) for strip in strips)
                    if all(text in shown for text in texts):
                        return
                pytest.fail(f"no {texts} in:\n{shown}")

            await sees("1 running, 1 waiting", "leased", "one", "two", "3 free")
            await pilot.press("l")
            await sees("step 2")
            for key, text in (("e", "starting → running"), ("a", "on testbox gpu 0"), ("w", "job 1 one is running")):
                await pilot.press(key)
                await sees(text)
            await pilot.press("down", "h")
            await sees("HeldByUser", "hold: job 2 is held")
            await pilot.press("r", "plus")
            await sees("update: job 2 is queued")
            assert client.job(second)["priority"] == "high"
            client.submit(["true"], env={}, name="told-of")
            await sees("told-of")
            await pilot.press("C", "y")
            await sees("cancel: job 2 is cancelled", "1 running, 1 waiting")
            await pilot.press("3")
            await sees("two", "bad", "exit 3")
            await pilot.press("P", "y")
            await sees("PAUSED by")

    asyncio.run(story())
    assert [client.job(job)["state"] for job in (first, second)] == ["running", "cancelled"]
