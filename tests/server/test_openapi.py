from __future__ import annotations

from typing import Any

PROMISED = {
    ("POST", "/jobs"),
    ("GET", "/jobs"),
    ("POST", "/jobs/check"),
    ("GET", "/jobs/{job_id}"),
    ("DELETE", "/jobs/{job_id}"),
    ("PATCH", "/jobs/{job_id}"),
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
    ("GET", "/queue"),
    ("GET", "/history"),
    ("GET", "/gpus"),
    ("POST", "/gpus/{index}/drain"),
    ("POST", "/gpus/{index}/undrain"),
    ("POST", "/queue/pause"),
    ("POST", "/queue/resume"),
    ("GET", "/groups"),
    ("POST", "/groups"),
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
