from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from gpuq.domain.job import JobView
from gpuq.engine.queries.gpu_report import GpuView
from gpuq.engine.queries.job_queries import WhyView
from gpuq.server.routes import admin, jobs, queue
from gpuq.server.routes.views import BulkItemView, JobDetailView, QueueAnswer

PROMISED = {
    ("GET", "/who"),
    ("GET", "/lanes"),
    ("POST", "/login-links"),
    ("GET", "/sessions"),
    ("DELETE", "/sessions/{session_id}"),
    ("POST", "/clean"),
    ("GET", "/disk"),
    ("GET", "/report/disk"),
    ("POST", "/jobs"),
    ("GET", "/jobs"),
    ("POST", "/jobs/check"),
    ("POST", "/jobs/place"),
    ("GET", "/jobs/{job_id}"),
    ("DELETE", "/jobs/{job_id}"),
    ("PATCH", "/jobs/{job_id}"),
    ("GET", "/jobs/ids"),
    ("POST", "/jobs/cancel"),
    ("POST", "/jobs/update"),
    ("POST", "/jobs/hold"),
    ("POST", "/jobs/release"),
    ("POST", "/jobs/retry"),
    ("POST", "/jobs/top"),
    ("POST", "/jobs/{job_id}/hold"),
    ("POST", "/jobs/{job_id}/release"),
    ("POST", "/jobs/{job_id}/retry"),
    ("POST", "/jobs/{job_id}/top"),
    ("GET", "/jobs/{job_id}/log"),
    ("GET", "/jobs/{job_id}/log/stream"),
    ("GET", "/events"),
    ("GET", "/jobs/{job_id}/why"),
    ("GET", "/jobs/{job_id}/script"),
    ("GET", "/jobs/{job_id}/result"),
    ("GET", "/jobs/{job_id}/result.{extension}"),
    ("GET", "/jobs/{job_id}/short_result"),
    ("POST", "/jobs/{job_id}/again"),
    ("POST", "/jobs/{job_id}/requeue"),
    ("POST", "/jobs/requeue"),
    ("GET", "/queue"),
    ("GET", "/history"),
    ("GET", "/gpus"),
    ("POST", "/gpus/{index}/drain"),
    ("POST", "/gpus/{index}/undrain"),
    ("POST", "/queue/pause"),
    ("POST", "/queue/resume"),
    ("GET", "/groups"),
    ("POST", "/groups"),
    ("GET", "/limits"),
    ("POST", "/limits"),
    ("GET", "/drain"),
    ("POST", "/drain"),
    ("DELETE", "/drain"),
    ("GET", "/stats"),
    ("GET", "/groups"),
    ("POST", "/groups"),
    ("GET", "/dlq"),
    ("GET", "/dlq/{job_id}"),
    ("POST", "/dlq/{job_id}/retry"),
    ("DELETE", "/dlq/{job_id}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/whoami"),
    ("GET", "/report/{kind}"),
    ("POST", "/sql"),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("DELETE", "/tokens/{token_id}"),
    ("POST", "/shutdown"),
}


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return found.union(*(_references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(value) for value in node))
    return set()


def test_the_document_has_every_promised_route_and_no_other(api: Any) -> None:
    document = api.root.get("/openapi.json").json()
    there = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert there == PROMISED


def test_the_document_hangs_together(api: Any) -> None:
    document = api.root.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for reference in _references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"]
        assert operation["responses"]["422"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/Error"
        }


def test_the_submission_is_described_by_its_fields(api: Any) -> None:
    document = api.root.get("/openapi.json").json()
    spec = document["components"]["schemas"]["JobSpec"]
    assert spec["required"] == ["command"]
    assert {"gpus", "gpu_mem_mb", "priority", "array"} <= set(spec["properties"])
    body = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"$ref": "#/components/schemas/JobSpec"} in body["oneOf"]


JOB = {"$ref": "#/components/schemas/JobView"}
JOBS = {"type": "array", "items": JOB}


def _answer(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    responses = document["paths"][path][method]["responses"]
    [status] = [status for status in responses if status < "300"]
    schema = dict(responses[status]["content"]["application/json"]["schema"])
    schema.pop("title", None)
    return schema


def test_a_job_is_described_by_one_schema_wherever_it_is_answered(api: Any) -> None:
    document = api.root.get("/openapi.json").json()
    assert _answer(document, "post", "/jobs") == {"oneOf": [JOB, JOBS]}
    for path in ("/jobs", "/history"):
        assert _answer(document, "get", path) == JOBS
    for verb in ("hold", "release", "retry", "top"):
        assert _answer(document, "post", f"/jobs/{{job_id}}/{verb}") == JOB
    for method in ("patch", "delete"):
        assert _answer(document, method, "/jobs/{job_id}") == JOB
    assert _answer(document, "post", "/dlq/{job_id}/retry") == JOB
    assert _answer(document, "get", "/queue")["properties"]["jobs"]["items"] == JOB
    assert document["components"]["schemas"]["JobView"]["required"] == list(JobView.__annotations__)


def test_attempts_events_reasons_and_gpus_are_described_by_their_fields(api: Any) -> None:
    document = api.root.get("/openapi.json").json()
    detail = _answer(document, "get", "/jobs/{job_id}")["properties"]
    assert detail["attempts"]["items"] == {"$ref": "#/components/schemas/AttemptView"}
    assert detail["events"]["items"] == {"$ref": "#/components/schemas/EventView"}
    why = _answer(document, "get", "/jobs/{job_id}/why")["properties"]
    assert why["reasons"]["items"] == {"$ref": "#/components/schemas/ReasonView"}
    assert _answer(document, "get", "/gpus")["items"] == {"$ref": "#/components/schemas/GpuView"}
    assert _answer(document, "post", "/gpus/{index}/drain") == {"$ref": "#/components/schemas/GpuView"}
    assert _answer(document, "post", "/jobs/hold")["items"] == {"$ref": "#/components/schemas/BulkItemView"}


def test_what_is_answered_is_what_the_document_describes(api: Any, start: Any) -> None:
    client = api.root
    running, held = (client.post("/jobs", json={"command": ["true"], "hold": hold}).json() for hold in (False, True))
    start(running["id"])
    client.post("/queue/pause", json={"reason": "maintenance"})
    for path, view in {
        "/jobs": list[JobView],
        f"/jobs/{running['id']}": JobDetailView,
        f"/jobs/{held['id']}/why": WhyView,
        "/queue": QueueAnswer,
        "/gpus": list[GpuView],
    }.items():
        answer = client.get(path)
        # A name that is not in the type is left out here.
        described = TypeAdapter(view).validate_json(answer.content)
        assert TypeAdapter(view).dump_python(described, mode="json") == answer.json()
    items = client.post("/jobs/release", json={"ids": [held["id"], 99]}).content
    TypeAdapter(list[BulkItemView]).validate_json(items)


def test_the_routes_are_those_that_were_made_once_so_that_the_first_request_waits_for_none(api: Any) -> None:
    made = [route for part in (jobs, queue, admin) for route in part.router.routes]
    assert made
    assert [route for route in made if not any(route is served for served in api.app.routes)] == []
