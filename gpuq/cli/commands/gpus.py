"""`gpuq gpus`, with drain and undrain."""

from __future__ import annotations

from gpuq.cli.commands.job_detail import outgrown
from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.fitting import fitted
from gpuq.cli.parse.options import LONGEST_NUMBER, Args
from gpuq.cli.render import local_times, memory
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A range longer than that is a slip of the finger.
MOST_GPUS = 1024
HEADER = ("GPU", "STATE", "MODEL", "MEMORY", "UTIL", "TEMP", "POWER", "HOLDER", "UUID")
RIGHT = ("GPU", "MEMORY", "UTIL", "TEMP", "POWER")
# What a narrow terminal does without, so that the holders are seen.
LESS = (("UUID", 0), ("POWER", 0), ("TEMP", 0), ("MODEL", 14), ("UTIL", 0), ("MODEL", 0))


def gpus(args: Args) -> int:
    """Prints the GPUs with their state and holder."""
    client = connect()
    rows = client.gpus()
    if args.flag("json"):
        print_json(rows)
    elif rows:
        print(fitted(HEADER, [_row(row) for row in rows], matters="HOLDER", less=LESS, right=RIGHT))
        if (planned := client.planned_drain()["drain"]) is not None:
            from gpuq.cli.commands.drain_line import drain_line

            print(drain_line(planned))
    else:
        say("gpuq: no GPUs here; jobs with -g 0 run all the same, GPUQ_GPUS=sim:4 simulates four")
    return 0


def drain(args: Args) -> int:
    """Takes GPUs out of service; what runs on them goes on."""
    client = connect()
    for index in indices(args.words):
        client.drain(index, args.text("reason"))
        print(f"gpu {index} is drained: what runs on it goes on, nothing new starts there")
    return 0


def undrain(args: Args) -> int:
    """Puts drained GPUs back in service."""
    client = connect()
    for index in indices(args.words):
        client.undrain(index)
        print(f"gpu {index} is back in the queue")
    return 0


def indices(words: list[str]) -> list[int]:
    """`0 2`, `0,2` and `0-2`, each once and in the order given. All are read before anything is done. Raises
    UsageError."""
    found: list[int] = []
    for word in ",".join(words).split(","):
        first, dash, last = word.partition("-")
        ends = [first, last] if dash else [first]
        if not all(end.isascii() and end.isdigit() and len(end) <= LONGEST_NUMBER for end in ends):
            raise UsageError(f"{word!r} is not the index of a GPU", hint="`gpuq gpus` lists them")
        low, high = int(ends[0]), int(ends[-1])
        if not low <= high < low + MOST_GPUS:
            wrong = "write the lower index first, as in 0-3" if low > high else f"at most {MOST_GPUS} at once"
            raise UsageError(f"{word!r} is no range of GPUs", hint=wrong)
        found.extend(range(low, high + 1))
    return list(dict.fromkeys(found))


def _row(gpu: Any) -> list[str]:
    used = "?" if gpu["used_mb"] is None else memory(gpu["used_mb"])
    return [
        str(gpu["index"]),
        gpu["state"],
        gpu["model"],
        f"{used}/{memory(gpu['memory_mb'])}",
        "" if gpu["utilisation"] is None else f"{gpu['utilisation']:.0%}",
        "" if gpu["temperature_c"] is None else f"{gpu['temperature_c']}C",
        "" if gpu["power_w"] is None else f"{gpu['power_w']:.0f}W",
        _holder(gpu),
        gpu["uuid"],
    ]


def _holder(gpu: Any) -> str:
    holders = [
        f"job {job['id']} ({', '.join(filter(None, [job['user'], outgrown(job) or memory(job['gpu_mem_mb'])]))})"
        for job in gpu["jobs"]
    ]
    holders += [
        f"{process['user'] or 'unknown user'} pid {process['pid']} {process['command'] or '?'}"
        for process in gpu["processes"]
    ]
    if not holders and gpu["reason"]:
        holders.append(local_times(gpu["reason"]["text"]))
    return "; ".join(holders)
