"""`gpuq show` and `gpuq why`."""

from __future__ import annotations

import sys

from gpuq.cli.commands.job_detail import detail, ending
from gpuq.cli.connect import connect, print_json
from gpuq.cli.fitting import print_facts
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import one, resolve_ids
from gpuq.cli.render import (
    about,
    command_text,
    full_time,
    local_times,
    memory,
    printable,
    since,
    span,
    table,
    when,
    width,
    wrapped,
)  # fmt: skip
from gpuq.domain.ids import parse_selection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls


def show(args: Args) -> int:
    """Prints jobs with their attempts and events; of an array how its elements fare."""
    client = connect()
    ids, named = resolve_ids(client, args.words), parse_selection(args.words)
    if args.flag("json"):
        found = [_document(client, args, job_id) for job_id in ids]
        # Of what may be several, a list, however many there are.
        many = len(ids) > 1 or named.ranges or named.slices
        print_json(found if many else found[0])
        return 0
    if args.flag("script"):
        for job_id in ids:
            sys.stdout.write(client.script(job_id))
        return 0
    for number, job_id in enumerate(ids):
        if number:
            print()
        job = client.job(job_id)
        if job_id in named.ids and job["array_id"] == job_id:
            from gpuq.cli.commands.show_array import print_array

            print_array(client, job)
        else:
            _print(job)
    return 0


def _document(client: Calls, args: Args, job_id: int) -> Any:
    job = client.job(job_id)
    if args.flag("script"):
        job["script"] = client.script(job_id) if job.get("script_bytes") else None
    return job


def _print(job: Any) -> None:
    print_facts([*_facts(job), *_left(job)])
    if job["attempts"]:
        print("\nAttempts")
        header = ("NO", "OUTCOME", "STARTED", "TOOK", "NODE", "GPUS", "PID", "PEAK", "END")
        print(table(header, [_attempt(attempt) for attempt in job["attempts"]], right=("NO", "TOOK"), state="OUTCOME"))
    if job["events"]:
        print("\nEvents")
        print(table(("AT", "FROM", "TO", "BY", "DETAIL"), [_event(event) for event in job["events"]], state="TO"))


def why(args: Args) -> int:
    """Prints why a job does not run, and when it is expected to."""
    client = connect()
    found = client.why(one(client, args.words[0]))
    if args.flag("json"):
        print_json(found)
        return 0
    limit = width()

    def line(text: str) -> None:
        print(wrapped(f"  {printable(local_times(text))}", 4, limit))

    print(f"job {found['id']} is {found['state']}" + _place(found))
    reasons = found["reasons"] or ([found["reason"]] if found["reason"] else [])
    for reason in reasons:
        line(f"{reason['code']}: {reason['text']}")
    for one_of_them in found.get("preemptions") or ():
        if one_of_them["job_id"] == found["id"]:
            at = when(one_of_them["at"])
            line(f"job {one_of_them['beneficiary']} waits for it: it will be stopped at {at} and put back in line")
    if found["estimated_start"]:
        line(f"it starts about {about(found['estimated_start'], found.get('estimated_start_range'))}")
    elif found["state"] == "running" and found["estimated_end"]:
        line(f"it ends about {about(found['estimated_end'], found.get('estimated_end_range'))}")
    if found.get("error"):
        line(f"{found['outcome']}: {found['error']}")
    return 0


def _place(found: Any) -> str:
    return "" if found["position"] is None else f", position {found['position']}"


def _facts(job: Any) -> list[tuple[str, str]]:
    """Label and value of everything that is known."""
    gpus = str(job["gpus"])
    if job["gpu_mem_mb"]:
        gpus += f" x {memory(job['gpu_mem_mb'])}, shared"
    if job.get("gpu_model"):
        gpus += f", model {job['gpu_model']}"
    if job.get("gpu_ids"):
        gpus += f", of {','.join(map(str, job['gpu_ids']))}"
    waits_for = [*map(str, job["after"]), *(f"{other} (any end)" for other in job.get("after_any") or [])]
    facts = [
        ("Job", f"{job['id']}  {job['name']}"),
        ("State", job["state"] + (f"  {said}" if (said := detail(job)) else "")),
        ("Position", "" if job["position"] is None else str(job["position"])),
        ("Estimated start", about(job["estimated_start"], job.get("estimated_start_range"))),
        ("Estimated end", about(job["estimated_end"], job.get("estimated_end_range")) if job["started_at"] else ""),
        ("User", job["user"] + (f", group {job['group']}" if job["group"] else "")),
        ("Priority", job["priority"] + (", preemptible" if job["preemptible"] else "")),
        ("GPUs", gpus),
        ("Command", command_text(job["command"])),
        ("Script", f"kept, {job['script_bytes']} bytes" if job.get("script_bytes") else ""),
        ("Directory", job["cwd"]),
        ("Array", f"{job['array_id']}_{job['array_index']}" if job["array_id"] is not None else ""),
        ("Parameters", ", ".join(f"{name}={value}" for name, value in (job.get("parameters") or {}).items())),
        ("Waits for", ", ".join(waits_for)),
        ("Key", job["key"] or ""),
        ("Time limit", span(job["time_limit_s"])),
        ("Expected run time", _expected(job)),
        ("Retries", f"{job['retries_used']} of {job['max_retries']} used"),
        ("Submitted", full_time(job["submitted_at"])),
        ("Started", full_time(job["started_at"])),
        ("Finished", full_time(job["finished_at"])),
        ("Cancelled", _cancelled(job)),
        ("Ran", since(job["started_at"], job["finished_at"])),
        ("Process", f"{job['pid']} on {job['node']}" if job["pid"] and job["node"] else ""),
        ("GPU uuids", ", ".join(job["gpu_uuids"] or [])),
        ("Output", job["log_path"] or ""),
    ]
    return [(name, value) for name, value in facts if value]


def _left(job: Any) -> list[tuple[str, str]]:
    """What it left; a daemon of an earlier release knows of nothing."""
    size, kind = job.get("result_bytes"), job.get("result_type")
    result = "" if size is None else f"{size} bytes" + (f", {kind}" if kind else "")
    facts = [("Short result", job.get("short_result") or ""), ("Result", result)]
    return [(name, value) for name, value in facts if value]


def _cancelled(job: Any) -> str:
    """Who asked for it and why, of a job that is cancelled or being so."""
    if job["state"] not in {"stopping", "cancelled"}:
        return ""
    for event in reversed(job["events"]):
        detail = event["detail"] or ""
        if event["to_state"] == "stopping" and detail.startswith("cancel"):
            reason = detail.partition(": ")[2].rpartition("; SIGKILL after")[0]
        elif event["to_state"] == "cancelled" and event["from_state"] not in {"starting", "running", "stopping"}:
            reason = detail.removeprefix("cancelled while waiting")
        else:
            continue
        return f"by {event['actor']}" + (f": {reason}" if reason else "")
    return ""


def _expected(job: Any) -> str:
    """What reservations and forecasts take its run time to be, and how they know."""
    expected = job.get("expected")
    if not expected:
        return ""
    low, high = expected.get("low_s"), expected.get("high_s")
    between = f", between {span(low)} and {span(high)}" if low is not None and high is not None else ""
    return f"{span(expected['seconds'])}{between} (from {expected['source']}, {expected['samples']} runs)"


def _attempt(attempt: Any) -> list[str]:
    return [
        str(attempt["number"]),
        attempt["outcome"] or "running",
        full_time(attempt["started_at"]),
        since(attempt["started_at"], attempt["finished_at"]),
        attempt["node"] or "",
        ",".join(map(str, attempt["gpu_indices"] or [])),
        str(attempt["pid"] or ""),
        memory(attempt["peak_gpu_mem_mb"]),
        local_times(ending(attempt)),
    ]


def _event(event: Any) -> list[str]:
    return [
        full_time(event["at"]),
        event["from_state"] or "",
        event["to_state"],
        event["actor"],
        local_times(event["detail"] or ""),
    ]
