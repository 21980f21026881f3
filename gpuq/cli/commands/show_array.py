"""What `gpuq show` prints of an array: what its elements have in common, how they fare, and a line for each."""

from __future__ import annotations

from gpuq.cli.commands.job_columns import lines
from gpuq.cli.fitting import print_facts
from gpuq.cli.parse.select import MANY, STATES
from gpuq.cli.render import command_text, cut, full_time, span, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls

# Elements that get a line of their own.
SHOWN = 50
COLUMNS = ("array", "id", "state", "gpu", "time", "start", "why")


def print_array(client: Calls, first: Any) -> None:
    """`first`: the first element, whose id is the array's."""
    array_id = first["id"]
    shown = client.jobs(array_id=array_id, limit=SHOWN)
    last = client.jobs(array_id=array_id, newest_first="true", limit=1)[0]
    counts = {state: len(client.names(array_ids=str(array_id), state=state, limit=MANY)) for state in STATES}
    total = sum(counts.values())
    print_facts(
        [
            ("Array", f"{array_id}  {first['name']}, {total:,} jobs: {_indices(first, last)}"),
            ("States", ", ".join(f"{number:,} {state}" for state, number in counts.items() if number)),
            ("User", first["user"] + (f", group {first['group']}" if first["group"] else "")),
            ("Priority", first["priority"] + (", preemptible" if first["preemptible"] else "")),
            ("GPUs", f"{first['gpus']} each"),
            ("Command", command_text(first["command"])),
            ("Directory", first["cwd"]),
            *([("Time limit", f"{span(first['time_limit_s'])} each")] if first["time_limit_s"] else []),
            ("Submitted", full_time(first["submitted_at"])),
        ]
    )
    limit = width()
    print("\nElements")
    print("\n".join(lines(shown, COLUMNS, limit)))
    rest = f"{len(shown):,} of {total:,} shown; `gpuq status {array_id}` lists them all; " if len(shown) < total else ""
    text = f"{rest}`gpuq show {array_id}_{first['array_index']}` tells about one"
    print(text if limit is None else cut(text, limit))


def _indices(first: Any, last: Any) -> str:
    return f"{first['array_id']}_[{first['array_index']}-{last['array_index']}]"
