"""What the routes answer, as types: the OpenAPI document has its response schemas from them, the type checker holds the
routes to them. The views of what the domain knows (a job, an attempt, an event, a reason) stand there."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

# Pydantic, which makes the schemas, takes the standard library's only from Python 3.12 on.
from typing_extensions import TypedDict

from gpuq.domain.events import EventView
from gpuq.domain.job import AttemptView, JobView
from gpuq.domain.reasons import ReasonView
from gpuq.domain.states import JobState
from gpuq.engine.queries.array_lines import ArrayView
from gpuq.engine.queries.drain_report import DrainView


class _Unchecked:
    """Leaves the annotated type in the OpenAPI document and takes it out of every answer: what a route returns is
    written as it is. To check a queue of a thousand jobs would cost more than to make it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # The described type is kept where it is found again below; the value passes by it.
        as_it_is = core_schema.wrap_serializer_function_ser_schema(
            lambda value, _: value, schema=handler(source), return_schema=core_schema.any_schema()
        )
        return core_schema.any_schema(serialization=as_it_is)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema["serialization"]["schema"])


T = TypeVar("T")
Answer = Annotated[T, _Unchecked()]


class ExpectedView(TypedDict):
    """How long a job is expected to run, what that rests on, and on how many runs; in four of five cases between
    `low_s` and `high_s`."""

    seconds: float
    source: str
    samples: int
    low_s: float
    high_s: float


class JobDetailView(JobView):
    """One job with its attempts and events. `expected` is null when it has ended, `script_bytes` (the size of its batch
    script) for a job that has none."""

    expected: ExpectedView | None
    script_bytes: int | None
    attempts: list[AttemptView]
    events: list[EventView]


class CheckView(TypedDict):
    """Whether a job could be queued. `reason`: the error's code and text, null when it could."""

    ok: bool
    estimated_start: str | None
    reason: ReasonView | None


class PlaceView(TypedDict):
    """What is wrong with a directory or a program on the daemon's machine; null: nothing that can be seen."""

    complaint: str | None


class ErrorView(TypedDict):
    """What an error says."""

    code: str
    message: str
    hint: str | None


class BulkItemView(TypedDict):
    """What became of one job of many: its `state`, or the `error` for which nothing was done."""

    id: int
    state: NotRequired[JobState | None]
    error: NotRequired[ErrorView]


class PauseView(TypedDict):
    """Who paused the queue, why, and when (ISO 8601 in UTC)."""

    by: str
    reason: str | None
    at: str | None


class QueuePauseView(TypedDict):
    """Whether the queue is paused: null when it is not."""

    paused: PauseView | None


class QueueAnswer(TypedDict):
    """Running jobs, then waiting ones in line. `total` counts what could be shown without `limit` and `offset`."""

    running: int
    queued: int
    waiting: int
    total: int
    paused: PauseView | None
    drain: DrainView | None
    arrays: NotRequired[dict[str, ArrayView]]
    jobs: list[JobView]


class DeadLetterView(TypedDict):
    """A job whose retries are used up. `log_tail`: the last lines of its output, null for whom it is not."""

    job_id: int
    name: str
    user: str
    failed_at: str | None
    outcome: str
    error: str | None
    attempts: int
    log_tail: str | None


class GroupView(TypedDict):
    """A group with its jobs. `limit` null: no limit."""

    group: str
    running: int
    waiting: int
    limit: int | None
    limited_by: str | None


class WhoamiView(TypedDict):
    """Whom the daemon takes the caller for. `uid` null: no account here."""

    user: str
    uid: int | None
    admin: bool


class StatsView(TypedDict):
    """Figures of the queue. `jobs`: how many in each state."""

    jobs: dict[JobState, int]
    running: int
    waiting: int
    finished: int
    dead_letters: int
    gpus: int
    paused: PauseView | None
    node: str


class TableView(TypedDict):
    """Columns by name, and rows of as many values."""

    columns: list[str]
    rows: list[list[Any]]


class HealthView(TypedDict):
    """The process lives. `at`: its time (ISO 8601 in UTC)."""

    status: str
    node: str
    at: str


class CheckedPartView(TypedDict):
    """Whether one part does its work, and what it says."""

    ok: bool
    detail: str


class MaintenanceView(TypedDict):
    """When a task of maintenance last began, succeeded and failed, and why."""

    task: str
    last_start: str | None
    last_ok: str | None
    last_error: str | None
    error: str | None


class StuckView(TypedDict):
    """A running job that does not come to its end, and why."""

    job_id: int
    text: str


class ReadyView(TypedDict):
    """Whether the installation does its work, part by part."""

    ready: bool
    checks: dict[str, CheckedPartView]
    maintenance: list[MaintenanceView]
    stuck: list[StuckView]


class TokenView(TypedDict):
    """An access token, without its secret."""

    id: int
    name: str
    user: str
    scope: str
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewTokenView(TypedDict):
    """A token with its secret, which is shown this once."""

    id: int
    user: str
    name: str
    scope: str
    expires_at: str | None
    token: str


class RevokedView(TypedDict):
    """A token that was revoked."""

    id: int
    revoked: bool


class StoppingView(TypedDict):
    """The daemon is on its way down."""

    stopping: bool
    stop_jobs: bool


class GroupLimitView(TypedDict):
    """How many jobs of a group may run at once; null: no limit."""

    group: str
    limit: int | None


class RemovedView(TypedDict):
    """The job whose dead letter is gone."""

    removed: int
