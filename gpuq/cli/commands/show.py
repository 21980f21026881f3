"""`gpuq show` and `gpuq why`."""

from __future__ import annotations

import sys

from gpuq.cli.commands.job_detail import detail, ending
from gpuq.cli.connect import connect, print_json
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import one
from gpuq.cli.render import command_text, full_time, local_times, memory, printable, since, span, table, when

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def show(args: Args) -> int:
    """Prints one job with its attempts and events."""
    client = connect()
    job_id = one(client, args.words[0])
    if args.flag("script") and not args.flag("json"):
        sys.stdout.write(client.script(job_id))
        return 0
    job = client.job(job_id)
    if args.flag("script"):
        job["script"] = client.script(job_id) if job.get("script_bytes") else None
    if args.flag("json"):
        print_json(job)
        return 0
    facts = _facts(job)
    facts += _left(job)
    widest = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name.ljust(widest)}  {printable(value)}")
    if job["attempts"]:
        print("\nAttempts")
        header = ("NO", "OUTCOME", "STARTED", "TOOK", "NODE", "GPUS", "PID", "PEAK", "END")
        print(table(header, [_attempt(attempt) for attempt in job["attempts"]], right=("NO", "TOOK"), state="OUTCOME"))
    if job["events"]:
        print("\nEvents")
        print(table(("AT", "FROM", "TO", "BY", "DETAIL"), [_event(event) for event in job["events"]], state="TO"))
    return 0


def why(args: Args) -> int:
    """Prints why a job does not run, and when it is expected to."""
    client = connect()
    found = client.why(one(client, args.words[0]))
    if args.flag("json"):
        print_json(found)
        return 0
    print(f"job {found['id']} is {found['state']}" + _place(found))
    reasons = found["reasons"] or ([found["reason"]] if found["reason"] else [])
    for reason in reasons:
        print(f"  {reason['code']}: {printable(local_times(reason['text']))}")
    if found["estimated_start"]:
        print(f"  it starts about {when(found['estimated_start'])}")
    if found.get("error"):
        print(f"  {found['outcome']}: {printable(found['error'])}")
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
        ("Estimated start", when(job["estimated_start"])),
        ("Estimated end", when(job["estimated_end"]) if job["started_at"] else ""),
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
    return f"{span(expected['seconds'])} (from {expected['source']}, {expected['samples']} runs)"


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
        ending(attempt),
    ]


def _event(event: Any) -> list[str]:
    return [
        full_time(event["at"]),
        event["from_state"] or "",
        event["to_state"],
        event["actor"],
        event["detail"] or "",
    ]
