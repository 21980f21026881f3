"""Which jobs a command line means: ids, ranges, array elements, `last`, `all`, and filters."""

from __future__ import annotations

from gpuq.cli.parse.options import ACTIVE as ACTIVE
from gpuq.cli.parse.options import FINAL as FINAL
from gpuq.cli.parse.options import STATES as STATES
from gpuq.cli.parse.options import WAITING as WAITING
from gpuq.domain.ids import parse_selection
from gpuq.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from gpuq.cli.parse.options import Args
    from gpuq.client.calls import Calls

FILTER_NAMES = ("me", "user", "state", "group", "name")
# As many as the daemon gives in one answer.
MANY = 100_000


def filters(client: Calls, args: Args) -> dict[str, Any]:
    """Those given, as the daemon's query parameters. Raises UsageError."""
    states = args.parts("state")
    for state in states:
        if state not in STATES:
            raise UsageError(f"unknown state {state!r}", hint="known: " + ", ".join(STATES))
    user = args.text("user")
    if args.flag("me"):
        if user is not None:
            raise UsageError("--me and --user cannot go together", hint="choose one")
        user = client.whoami()["user"]
    found = {
        "user": user,
        "state": ",".join(states) or None,
        "group": args.text("group"),
        "name": args.text("name"),
    }
    return {name: value for name, value in found.items() if value is not None}


def resolve_ids(client: Calls, words: list[str], *, arrays: bool = False) -> list[int]:
    """Every id that the words name; with `arrays`, an array's id means all its elements. Raises UsageError, also for
    `all`, and NotFound."""
    selection = parse_selection(words)
    if selection.all:
        raise UsageError("`all` is not possible here", hint="name the jobs")
    found = whole_arrays(client, selection.ids) if arrays else list(selection.ids)
    for low, high in selection.ranges:
        found += _in_range(client, low, high, {})
    if selection.ranges and not found:
        raise NotFound(f"there are no jobs {words[0]}", hint="`gpuq status` and `gpuq history` list the jobs")
    found += _elements(client, selection.elements)
    found += _in_slices(client, selection.slices, {})
    if selection.last:
        found.append(newest(client))
    return list(dict.fromkeys(found))


def whole_arrays(client: Calls, ids: Iterable[int], query: Mapping[str, Any] | None = None) -> list[int]:
    """The id that an array was given stands for all its elements (`7_0` is the first of them alone); with `query`, for
    those that it finds, and where it finds none, for the first, of which the daemon says what is wrong with it."""
    ids = tuple(ids)
    arrays = _arrays(client, ids)
    meant = arrays if not (query and arrays) else _arrays(client, arrays, query)
    found: list[int] = []
    for job_id in ids:
        found += (meant.get(job_id) or dict(list(arrays.get(job_id, {0: job_id}).items())[:1])).values()
    return found


def _arrays(client: Calls, ids: Iterable[int], query: Mapping[str, Any] | None = None) -> dict[int, dict[int, int]]:
    """Elements by index of those of these ids that are arrays; with `query`, those alone that it finds."""
    arrays: dict[int, dict[int, int]] = {}
    for some in _pieces(list(dict.fromkeys(ids))):
        for job_id, array_id, index in client.names(array_ids=",".join(map(str, some)), limit=MANY, **(query or {})):
            arrays.setdefault(array_id, {})[index] = job_id
    return arrays


def _pieces(ids: list[int]) -> list[list[int]]:
    """What fits into the address of one request."""
    return [ids[start : start + 1000] for start in range(0, len(ids), 1000)]


def labels(client: Calls, ids: list[int]) -> dict[int, str]:
    """What to call each of several jobs: `9_3` of an array, else its id."""
    found = {
        job_id: f"{array_id}_{index}" if array_id is not None else str(job_id)
        for some in _pieces(ids)
        for job_id, array_id, index in client.names(ids=",".join(map(str, some)), limit=len(some))
    }
    return {job_id: found.get(job_id, str(job_id)) for job_id in ids}


def one(client: Calls, word: str) -> int:
    """The one job that the word names."""
    found = resolve_ids(client, [word])
    if not found:
        raise UsageError(f"{word!r} names no job", hint="name one job: 7, 7_3 or last")
    if len(found) != 1:
        raise UsageError(f"{word!r} is more than one job", hint="name one job")
    return found[0]


def select(client: Calls, args: Args, candidates: Iterable[str], *, elements_too: bool = False) -> list[int]:
    """The jobs that a command is to act on. Ids that were written out are taken as they are, so that the daemon
    says what is wrong with one; arrays, ranges, `all` and filters mean those of `candidates` (states) that are there.
    `elements_too`: of an array all elements, whatever their state.

    Raises UsageError for nothing named, and for `all` with neither a filter nor --yes.
    """
    candidates = tuple(candidates)
    # `update` has a --name and a --group of its own, which are changes.
    filtering = "--me" in args.command.flags()
    wanted = filters(client, args) if filtering and args.any_of(FILTER_NAMES) else {}
    selection = parse_selection(args.words)
    name = args.command.name
    if not args.words and not wanted:
        raise UsageError(f"{name}: which jobs?", hint=f"gpuq {name} 7, or 7,9, 300-440, last, all --me")
    if (selection.all or not args.words) and not wanted and not args.flag("yes"):
        raise UsageError(f"{name} all: that is everybody's jobs", hint="narrow it (--me, -s, -g, -n), or add --yes")
    if wanted.get("state"):
        asked = wanted["state"].split(",")
        candidates = tuple(state for state in candidates if state in asked)
        if not candidates:
            raise UsageError(f"{name} cannot act on jobs that are {wanted['state']}", hint=f"see `gpuq {name} --help`")
    query = {**wanted, "state": ",".join(candidates)}
    if selection.all or not args.words:
        return [job_id for job_id, _, _ in client.names(**query, limit=MANY)]
    found = [job_id for low, high in selection.ranges for job_id in _in_range(client, low, high, query)]
    of_arrays = None if elements_too else {"state": query["state"]}
    named = [*whole_arrays(client, selection.ids, of_arrays), *_elements(client, selection.elements)]
    named += _in_slices(client, selection.slices, of_arrays)
    if selection.last:
        named.append(newest(client))
    if wanted and named:
        known = {
            job_id
            for some in _pieces(named)
            for job_id, _, _ in client.names(**query, ids=",".join(map(str, some)), limit=len(some))
        }
        named = [job_id for job_id in named if job_id in known]
    return list(dict.fromkeys([*named, *found]))


def newest(client: Calls) -> int:
    """The caller's newest job. Raises NotFound."""
    user = client.whoami()["user"]

    found = client.jobs(user=user, newest_first="true", limit=1)
    if not found:
        raise NotFound(f"{user} has no jobs", hint="`gpuq submit` queues one")
    return int(found[0]["id"])


def matches(job: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a job passes the filters."""
    if "state" in wanted and job["state"] not in wanted["state"].split(","):
        return False
    return all(job[name] == wanted[name] for name in ("user", "group", "name") if name in wanted)


def in_ranges(client: Calls, words: list[str]) -> dict[str, int] | None:
    """How many jobs the ranges among the words hold, by state; None when there is no range."""
    ranges = parse_selection(words).ranges
    if not ranges:
        return None
    counts = {
        state: sum(len(_in_range(client, low, high, {"state": state})) for low, high in ranges) for state in STATES
    }
    return {state: count for state, count in counts.items() if count}


def _in_range(client: Calls, low: int, high: int, query: Mapping[str, Any]) -> list[int]:
    found = client.names(**query, after_id=max(0, low - 1), until_id=high, limit=high - low + 1)
    return [job_id for job_id, _, _ in found if low <= job_id <= high]


def _elements(client: Calls, wanted: Iterable[tuple[int, int]]) -> list[int]:
    """The jobs that these elements (array id, index) are. Raises NotFound."""
    wanted = tuple(wanted)
    arrays = _arrays(client, (array_id for array_id, _ in wanted))
    found = []
    for array_id, index in wanted:
        if index not in arrays.get(array_id, ()):
            raise NotFound(f"there is no job {array_id}_{index}", hint=f"`gpuq show {array_id}` tells about the array")
        found.append(arrays[array_id][index])
    return found


def _in_slices(client: Calls, wanted: Iterable[tuple[int, int, int]], query: Mapping[str, Any] | None) -> list[int]:
    """The elements with these indices (array id, first, last) that are there; with `query`, that it finds. Raises
    NotFound where there is none at all."""
    wanted = tuple(wanted)
    found: list[int] = []
    arrays = _arrays(client, (array_id for array_id, _, _ in wanted))
    meant = _arrays(client, arrays, query) if query else arrays
    for array_id, low, high in wanted:
        there = [job_id for index, job_id in sorted(arrays.get(array_id, {}).items()) if low <= index <= high]
        if not there:
            hint = f"`gpuq show {array_id}` tells about the array"
            raise NotFound(f"there is no job {array_id}_[{low}-{high}]", hint=hint)
        acting = set(meant.get(array_id, {}).values())
        found += [job_id for job_id in there if job_id in acting] or there[:1]
    return found
