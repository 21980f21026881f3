"""`gpuq who`: who uses the machine."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json
from gpuq.cli.parse.options import Args
from gpuq.cli.render import full_time, table


def who(args: Args) -> int:
    """One row a user, and below them the jobs whose GPUs stand still."""
    users = connect().call("GET", "/who")
    if args.flag("json"):
        print_json(users)
        return 0
    rows = [
        [
            row["user"],
            str(row["running"]),
            str(row["waiting"]),
            str(row["gpus"]),
            str(row["idle_gpus"] or ""),
            f"{row['gpu_hours']:.1f}",
        ]
        for row in users
    ]
    head = ("USER", "RUNNING", "WAITING", "GPUS", "IDLE", "GPU-HOURS (7d)")
    print(table(head, rows) if rows else "nobody ran anything within a week")
    for row in users:
        for job in row["idle"]:
            cards = "1 GPU" if job["gpus"] == 1 else f"{job['gpus']} GPUs"
            whose = f"job {job['job_id']} ({job['name']}) of {row['user']}"
            print(f"{whose} holds {cards} unused since {full_time(job['since'])}")
    return 0
