"""Secrets in requests: what is stored of a request tells nothing of them."""

from __future__ import annotations

import json
from typing import Any

from gpuq.domain.spec import Batch, JobSpec
from gpuq.server.routes.submission_clerk import fingerprint_of

PLAIN = {"command": ["true"], "cwd": "/", "gpus": 0, "hold": True}


def _fingerprint(**fields: Any) -> str:
    body = {**PLAIN, **fields}
    return fingerprint_of(json.dumps(body).encode(), [JobSpec.parse(body)])


def test_the_fingerprint_of_a_request_is_the_same_whatever_the_secrets_are_and_another_for_all_else() -> None:
    first = _fingerprint(secrets={"A_KEY": "1"}, env={"X": "1"})
    assert first == _fingerprint(secrets={"A_KEY": "2"}, env={"X": "1"})
    others = [_fingerprint(secrets={"A_KEY": "1"}, env={"X": "2"}), _fingerprint(secrets={"A_KEY": "1"}, name="x")]
    assert len({first, *others}) == 3
    batch = Batch.model_validate(
        {"jobs": [PLAIN, {**PLAIN, "name": "x"}], "secrets": {"A_KEY": "1"}, "env": {"X": "1"}}
    )
    assert fingerprint_of(b"", batch.specs()) == fingerprint_of(b"other", batch.specs())
    assert fingerprint_of(b"a", [JobSpec.parse(PLAIN)]) != fingerprint_of(b"b", [JobSpec.parse(PLAIN)])


def test_a_complaint_about_a_secret_does_not_quote_it(api: Any) -> None:
    canary = "canary-in-a-complaint"
    for secrets in ({"A": canary + "\0"}, {"A": [canary]}, canary, {"A": {canary: 1}}):
        for body in (
            {**PLAIN, "secrets": secrets},
            [{**PLAIN, "secrets": secrets}],
            {"jobs": [PLAIN], "secrets": secrets},
        ):
            refused = api.daemon.post("/jobs", json=body)
            assert refused.status_code == 422
            assert canary not in refused.text
        assert canary not in api.daemon.post("/jobs/check", json={**PLAIN, "secrets": secrets}).text
    made = api.daemon.post("/jobs", json={**PLAIN, "secrets": {"A": canary}})
    assert made.status_code == 201
    assert canary not in made.text + api.daemon.post(f"/jobs/{made.json()['id']}/again", json={}).text


def test_a_name_without_a_value_is_refused_as_what_it_is(api: Any) -> None:
    refused = api.daemon.post("/jobs", json={**PLAIN, "secrets": {"A_KEY": None}})
    assert (refused.status_code, refused.json()["error"]["message"]) == (422, "secrets: A_KEY has no value")
