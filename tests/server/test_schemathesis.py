"""The OpenAPI document against what the application does: some thousand generated requests, right and wrong ones.

All checks of schemathesis: no 5xx, every status and content type is in the document, answers fit their schemas, what
fits is taken and what does not is refused, other methods are a 405 that names the right ones. `GPUQ_TEST_SEED=n` makes
other requests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData, ServerError
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import RejectedPositiveData

from gpuq.server.http.peer import EXTENSION, Peer

SEED = int(os.environ.get("GPUQ_TEST_SEED", "20261128"))
# At random of each operation, beside those that are derived from the document one by one.
EXAMPLES = 8
# Not all of these are made: they bound the run, should it ever find ways to make more.
MOST = 10_000
FEWEST = 1000


def whole(value: Any) -> Any:
    """JSON Schema takes 1.0 for an integer; here a whole number is written as one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(one) for one in value]
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    return value


def excused(failure: Exception, case: Any, response: Any) -> bool:
    """What a document cannot say."""
    label = case.operation.label
    if isinstance(failure, RejectedPositiveData):
        # Whether a text is SQL, whether this machine has such GPUs, which end of a range is the smaller number, which
        # fields of a job can be changed, and to what.
        error = json.loads(response.content)["error"]
        if label in {"POST /jobs/update", "POST /jobs/{job_id}/again"} and error["code"] == "usage":
            return True
        # Which texts are times, and that a drain does not end before it begins.
        if label == "POST /drain" and error["message"].startswith(("at: ", "until: ")):
            return True
        # What a script, a sweep, a secret, a limit and a difference of one may be; that a line of waiting jobs has no
        # states of those who ended; and that one of the reports has one grouping.
        unsaid = ("script: ", "sweep: ", "secrets: ", "limits: ", "time_add_s", "state: the queue holds no")
        if any(words in error["message"] for words in (*unsaid, "report utilization groups by one thing")):
            return True
        return label == "POST /sql" or error["code"] in {"constraint", "too_large"} or "bad array" in error["message"]
    if isinstance(failure, AcceptedNegativeData):
        # The answer to a question whether something could be queued is no; and no body, where it may be left out.
        return label == "POST /jobs/check" or not case.body or case.body is schemathesis.core.NOT_SET
    # That nothing runs here is what it is asked for.
    return isinstance(failure, ServerError) and label == "GET /readyz"


def run(app: Any) -> Iterator[tuple[Any, Any, list[Exception]]]:
    """Every request with its answer and what was found wrong with it."""
    settings = {
        "seed": SEED,
        "continue-on-failure": True,
        "generation": {"max-examples": EXAMPLES, "no-shrink": True},
        # Answers have no links to follow.
        "phases": {"stateful": {"enabled": False}},
    }
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(settings))
    schema.hook(map_body)
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            for name, node in event.recorder.cases.items():
                checks = event.recorder.checks.get(name, [])
                found = [check.failure_info.failure for check in checks if check.failure_info is not None]
                interaction = event.recorder.interactions.get(name)
                yield node.value, interaction and interaction.response, found


def map_body(context: Any, body: Any) -> Any:
    return whole(body)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")
def test_the_application_does_what_its_document_says(api: Any) -> None:
    # Streams would not end.
    api.app.state.streams = None

    async def as_root(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["extensions"] = {EXTENSION: Peer(1, 0, 0)}
        await api.app(scope, receive, send)

    print(f"seed {SEED}")
    wrong: list[str] = []
    asked = 0
    for case, response, found in run(as_root):
        asked += 1
        for failure in found:
            if not excused(failure, case, response):
                wrong.append(
                    f"{type(failure).__name__}: {failure}\n{case.as_curl_command()}\n{response.content[:500]!r}"
                )
        assert asked < MOST
    assert not wrong, f"seed {SEED}: {len(wrong)} findings\n\n" + "\n\n".join(wrong[:5])
    assert asked > FEWEST
