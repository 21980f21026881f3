"""The body of a submission, read by pydantic straight from the bytes: one job, a list of them, or a batch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model

from gpuq.domain.spec import Batch, JobSpec, usage_error
from gpuq.engine.intake.request_size import too_many_jobs
from gpuq.errors import GpuqError, UsageError


class BadSubmission(Exception):
    """`index` is the place in the list, from 0; None for a single submission."""

    def __init__(self, error: GpuqError, index: int | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.index = index


# Of what is parsed, pydantic keeps the last 16,384 short texts for those that come again. A large submission leaves
# names there, one in each megabyte of what it took, and none of that could be given back.
_KEYS_ALONE = ConfigDict(cache_strings="keys")


class _LeanBatch(Batch):
    model_config = _KEYS_ALONE


class Bodies:
    """Reads bodies of at most `most` submissions; a longer one is refused when so many have been read."""

    def __init__(self, most: int) -> None:
        self._most = most
        jobs: Any = Annotated[list[JobSpec], Field(max_length=most)]
        self._list: TypeAdapter[list[JobSpec]] = TypeAdapter(jobs, config=_KEYS_ALONE)
        self._batch: type[Batch] = create_model("Batch", __base__=_LeanBatch, jobs=(jobs, ...))

    def parse(self, body: bytes) -> tuple[list[JobSpec], bool]:
        """The specs, and whether there may be several. Raises BadSubmission, and ValueError for what is not JSON."""
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            try:
                return self._list.validate_json(body), True
            except ValidationError as error:
                raise self._complaint(error, 0) from None
        try:
            return [JobSpec.model_validate_json(body)], False
        except ValidationError as error:
            if not any(one["loc"] == ("jobs",) for one in error.errors(include_url=False, include_input=False)):
                raise self._complaint(error, None) from None
        try:
            return self._batch.model_validate_json(body).specs(), True
        except ValidationError as error:
            raise self._complaint(error, 1) from None

    def _complaint(self, error: ValidationError, index_at: int | None) -> Exception:
        """`index_at`: where in the place of a complaint the number of the item stands."""
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = first["loc"]
        if first["type"] == "json_invalid":
            return ValueError(first["msg"].removeprefix("Invalid JSON: "))
        if first["type"] == "too_long" and place == ("jobs",)[: index_at or 0]:
            return BadSubmission(too_many_jobs(self._most), None)
        index = place[index_at] if index_at is not None and len(place) > index_at else None
        complaint = usage_error(error)
        if not isinstance(index, int):
            return BadSubmission(complaint, None)
        item = ".".join(str(part) for part in place[: (index_at or 0) + 1])
        return BadSubmission(_in_item(complaint, item, index), index)


def _in_item(complaint: UsageError, item: str, index: int) -> GpuqError:
    text = complaint.message.replace(f"{item}.", "", 1).removeprefix(f"{item}: ")
    return of_item(UsageError(text, hint=complaint.hint), index)


def of_item(error: GpuqError, index: int) -> GpuqError:
    """The error, naming the item as people count."""
    return type(error)(f"item {index + 1} of the list: {error.message}", hint=error.hint)
