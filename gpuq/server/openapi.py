"""The OpenAPI document: the framework's own, with the submission, which it does not see, our errors in place of its
errors, and what is checked beyond a field's type, so that what fits the document is taken."""

from __future__ import annotations

import copy
from typing import Any

from gpuq.domain.spec import SIGNALS, Batch, JobSpec
from gpuq.engine.actions.change import CHANGEABLE
from gpuq.engine.actions.new_limit import TIME_ADD
from gpuq.server.routes import submission

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
            },
        }
    },
}
_STATUSES = {
    "400": "the body is not JSON, or the request names no host or several",
    "401": "no token, or a wrong one",
    "403": "another user's job, or a web page of another origin",
    "404": "no such job",
    "408": "the request did not come to its end in time",
    "409": "the job's state does not allow it",
    "413": "more at once than is taken",
    "415": "a browser sent a body that is not called JSON",
    "421": "the request names a host that this server is not",
    "422": "malformed, or can never run here",
    "431": "the header is larger than 64 KiB",
    "503": "database or Redis is away, or too many connections are open",
}
_ANSWER = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}

_NO_NUL = "^[^\\x00]*$"
_ARRAY_PART = "[0-9]{1,9}(-[0-9]{1,9}(:[1-9][0-9]{0,8})?)?"


def _text_or_null(pattern: str) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", "pattern": pattern}, {"type": "null"}]}


# What JobSpec's own checks want of a field, or of fields together.
_SPEC: dict[str, dict[str, Any]] = {
    "command": {
        "prefixItems": [{"type": "string", "minLength": 1, "pattern": _NO_NUL}],
        "items": {"type": "string", "pattern": _NO_NUL},
    },
    "cwd": _text_or_null("^/[^\\x00]*$"),
    "env": {
        "propertyNames": {"pattern": "^[^=\\x00]+$"},
        "additionalProperties": {"type": "string", "pattern": _NO_NUL},
    },
    "begin": {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 4102444800},
            {"type": "string", "format": "date-time", "pattern": "^(19[789]|20[0-9])[0-9]-"},
            {"type": "null"},
        ]
    },
    "array": _text_or_null(f"^{_ARRAY_PART}(,{_ARRAY_PART})*(%[1-9][0-9]{{0,8}})?$"),
    "signal": _text_or_null(f"^(SIG)?({'|'.join(sorted(SIGNALS))})(@[0-9]+)?$"),
}
# A job without GPUs cannot ask for their memory, and an array cannot carry a key.
_SHARED_NOTHING = {"gpu_mem_mb": {"type": "integer"}, "gpus": {"const": 0}}
_KEYED_ARRAY = {"array": {"type": "string"}, "key": {"type": "string"}}
_TOGETHER = {
    "allOf": [{"not": {"required": list(both), "properties": both}} for both in (_SHARED_NOTHING, _KEYED_ARRAY)]
}


def documented(document: dict[str, Any]) -> dict[str, Any]:
    """The framework's document made ours, in place."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(spec.pop("$defs", {}))
    for name, more in _SPEC.items():
        spec["properties"][name].update(more)
    schemas["JobSpec"] = spec | _TOGETHER
    batch = Batch.model_json_schema(ref_template="#/components/schemas/{model}")
    batch.pop("$defs", None)
    batch["properties"]["env"].update(_SPEC["env"])
    schemas["Batch"] = batch
    schemas["Error"] = _ERROR
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["paths"][submission.PATH]["post"] = copy.deepcopy(submission.OPERATION)
    _changes(document["paths"]["/jobs/{job_id}"]["patch"], spec["properties"])
    for path in document["paths"].values():
        for operation in path.values():
            _name_answers(operation["responses"], schemas)
            own = operation["responses"]
            for status, text in _STATUSES.items():
                if status not in own or status == "422":
                    own[status] = {"description": text, "content": _ANSWER}
    return document


def _changes(operation: dict[str, Any], fields: dict[str, Any]) -> None:
    """Of a job these fields alone may change; a name is not taken away."""
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    changeable = {name: fields[name] for name in CHANGEABLE}
    changeable["name"] = next(one for one in fields["name"]["anyOf"] if one["type"] == "string")
    changeable[TIME_ADD] = {"type": "number", "description": "seconds more, or less, than its time limit; not with one"}
    body.update(type="object", properties=changeable, additionalProperties=False)


def _name_answers(responses: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Puts the name in place of what is described by name too: the framework writes an answer out at its route."""
    for response in responses.values():
        for content in response.get("content", {}).values():
            there = content.get("schema", {}).get("properties")
            for name, schema in schemas.items():
                if there is not None and schema.get("properties") == there:
                    content["schema"] = {"$ref": f"#/components/schemas/{name}"}
