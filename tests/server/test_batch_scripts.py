"""The script of a submission: kept, bounded, and shown to whom it belongs."""

from __future__ import annotations

from typing import Any

import pytest

SCRIPT = "#!/bin/bash\necho ä\n"


@pytest.mark.usefixtures("as_root")
def test_a_script_is_kept_and_shown_to_its_owner_and_root_alone(api: Any) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["train.sh", "a"], "script": SCRIPT, "cwd": "/"})
    assert (answer.status_code, "script" in answer.json()) == (201, False)
    job = answer.json()["id"]
    path = f"/jobs/{job}/script"
    assert [client.get(path).text for client in (api.daemon, api.root)] == [SCRIPT, SCRIPT]
    refused = api.bin.get(path)
    assert (refused.status_code, "echo" in refused.text) == (403, False)
    shown = api.bin.get(f"/jobs/{job}").json()
    assert (shown["script_bytes"], "script" in shown) == (len(SCRIPT.encode()), False)


def test_a_job_without_a_script_has_none(api: Any) -> None:
    job = api.daemon.post("/jobs", json={"command": ["true"], "cwd": "/"}).json()["id"]
    assert api.daemon.get(f"/jobs/{job}").json()["script_bytes"] is None
    answer = api.daemon.get(f"/jobs/{job}/script")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(("script", "status"), [("ä" * (1 << 19), 201), ("ä" * (1 << 19) + "a", 413), (" ", 422)])
def test_a_script_has_at_most_a_mebibyte(api: Any, script: str, status: int) -> None:
    answer = api.daemon.post("/jobs", json={"command": ["x"], "script": script, "cwd": "/"})
    assert answer.status_code == status, answer.text
    if status != 201:
        assert answer.json()["error"]["message"].startswith("script: ")


def test_the_scripts_of_an_array_count_towards_the_size_of_a_request(api: Any) -> None:
    spec = {"command": ["x"], "script": "#" * (1 << 20), "cwd": "/", "array": "0-256"}
    assert api.daemon.post("/jobs", json=spec).status_code == 413
