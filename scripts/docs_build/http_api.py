"""The HTTP interface as pages, from the OpenAPI document that the daemon itself serves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from tables import cell, table

from gpuq.domain.spec import JobSpec
from gpuq.engine.context import Context
from gpuq.server.app import create_app
from gpuq.settings import Settings

# A sentence for each field of a submission.
FIELDS = {
    "command": "the program and its arguments; no shell",
    "name": "1 to 200 characters; else the program's name",
    "cwd": "working directory; else the caller's home directory",
    "env": "variables, over those of a batch",
    "secrets": "variables that are kept apart, encrypted, until the job's end; those of `env` come first; 64 KiB",
    "gpus": "how many; 0 is none",
    "gpu_mem_mb": "MiB on each GPU: the GPU is shared",
    "gpu_model": "only GPUs whose model contains this",
    "gpu_ids": "only these GPUs, by index",
    "priority": "`critical`, `high`, `normal`, `low`, or 0 to 3",
    "group": "for filters and limits",
    "time_limit_s": "seconds that an attempt may run",
    "max_retries": "retries after failures of the program; else `GPUQ_DEFAULT_MAX_RETRIES`",
    "after": "ids of jobs that must have succeeded",
    "after_any": "ids of jobs that must have ended, however",
    "begin": "not before: epoch seconds, or ISO 8601",
    "array": "`0-15`, `0-15:2` (step), `0-15%4` (four at a time): one job per index",
    "hold": "queued held",
    "key": "the same key again returns the live or successful job and queues nothing",
    "preemptible": "may be put back in line when others wait",
    "signal": "`USR1@60`: that signal, 60 s before the time limit or a preemption",
    "kill_grace_s": "seconds between SIGTERM and SIGKILL; else `GPUQ_KILL_GRACE`; with a limit, not beyond both",
    "requeue": "back in line at its time limit or with exit code 75; no retry used",
    "keep_waiting": "when a job of `after` fails or is cancelled: stays blocked, for its retry; else it is cancelled",
    "sweep": "values by name, each as `1e-3,1e-4`, `0..4` or a list: one job for each combination",
    "umask": "the umask that it starts with, 0 to 511 (decimal); else 18 (022)",
    "limits": "soft limits that it starts with, -1 for none: `as`, `core`, `cpu`, `data`, `fsize`, `memlock`, `nofile`,"
    " `nproc`, `stack`, in the units of setrlimit(2); at most the daemon's hard limits",
    "nice": "0 to 19: its niceness, if the daemon's is not nicer already",
    "script": "text of a batch script (1 MiB), which runs with the arguments of `command`; its first line says"
    " what runs it, else bash; `command[0]` is then only what it is called",
}


@cache
def document() -> dict[str, Any]:
    # The routes ask for nothing of a context until a request comes, except which database there is.
    app = create_app(cast(Context, SimpleNamespace(settings=Settings())))
    return app.openapi()


def routes() -> str:
    groups: dict[str, list[str]] = {}
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append("\n".join(_operation(method.upper(), path, operation)))
    return "\n".join(f"## {tag.capitalize()}\n\n" + "\n".join(found) for tag, found in groups.items())


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`"
    yield ""
    yield f"{operation['summary']}."
    if text := operation.get("description"):
        yield ""
        yield text
    yield ""
    if body := _body(operation):
        yield f"Body: {body}."
        yield ""
    rows = [
        f"| `{found['name']}` | {found['in']} | {_kind(found['schema'])} | {cell(found.get('description') or '')} |"
        for found in operation.get("parameters", [])
    ]
    if rows:
        yield table("| parameter | in | type | means |", rows)
    for status, answer in operation["responses"].items():
        if status < "300" and answer["description"] != "Successful Response":
            yield f"{status}: {answer['description']}"
            yield ""


def _body(operation: dict[str, Any]) -> str:
    if "requestBody" not in operation:
        return ""
    return _kind(operation["requestBody"]["content"]["application/json"]["schema"])


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words: `integer, 0 to 100`."""
    if "$ref" in schema:
        return _named(schema["$ref"].rpartition("/")[2])
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(choice) for choice in choices if choice != {"type": "null"})
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "default" in schema and schema["default"] is not None:
        return f"{kind}, default `{str(schema['default']).lower()}`"
    return kind


def _named(name: str) -> str:
    """A submission has a table of its own; of the other bodies the fields are named."""
    if name in {"JobSpec", "Batch"}:
        return f"[{'submission' if name == 'JobSpec' else 'batch'}](#a-submission)"
    schema = document()["components"]["schemas"][name]
    required = set(schema.get("required", ()))
    fields = (
        f"`{field}` ({_kind(about)}{'' if field in required else ', optional'})"
        for field, about in schema.get("properties", {}).items()
    )
    return "object with " + ", ".join(fields)


def submission() -> str:
    if missing := set(JobSpec.model_fields) - set(FIELDS):
        raise KeyError(f"the documents need a sentence for {sorted(missing)} (scripts/docs_build/http_api.py)")

    def rows() -> Iterator[str]:
        for name, field in JobSpec.model_fields.items():
            if field.is_required():
                default = "required"
            elif field.default in (None, [], {}):
                default = "–"
            else:
                default = f"`{getattr(field.default, 'label', field.default)}`".replace("False", "false")
            yield f"| `{name}` | {default} | {FIELDS[name]} |"

    return table("| field | default | means |", rows())
