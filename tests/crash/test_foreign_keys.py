"""Somebody else's key stands where gpuq's should: everybody is told, and all goes on once it is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import redis

TOLD = "holds a key of another program under gpuq's namespace"


def test_a_key_of_another_program_is_told_by_whoever_is_asked_and_forgotten_when_it_is_gone(
    make_box: Callable[..., Any], redis_url: str
) -> None:
    box = make_box(GPUQ_REDIS_URL=redis_url)
    box.up()
    with (
        redis.Redis.from_url(redis_url) as store,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(box.home / "gpuq.sock")), base_url="http://gpuq") as client,
    ):
        assert client.get("/readyz").status_code == 200
        assert "gpuq_ready 1.0" in client.get("/metrics").text
        store.delete("gpuq:queues")
        store.set("gpuq:queues", "x")
        assert client.get("/readyz").status_code == 503
        job = box.submit("-g", "0", "--", "true")

        def told() -> bool:
            return bool(box.json("why", str(job))["reason"]["code"] == "LaunchTrouble")

        box.until(told, "the reason is told")
        why = box.json("why", str(job))
        assert TOLD in why["reason"]["text"]
        assert [reason["code"] for reason in why["reasons"]] == ["LaunchTrouble"]
        assert why["estimated_start"] is None
        checks = client.get("/readyz").json()["checks"]
        assert [TOLD in checks[part]["detail"] for part in ("redis", "agent")] == [True, True]
        assert "gpuq_ready 0.0" in client.get("/metrics").text
        found = {line["check"]: line["status"] for line in json.loads(box.gpuq("doctor", "--json", code=1).stdout)}
        assert (found["daemon: redis"], found["daemon: agent"]) == ("fail", "fail")
        store.delete("gpuq:queues")
        box.until_state(job, "completed")
        box.until(lambda: client.get("/readyz").status_code == 200, "all is well")
