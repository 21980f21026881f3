"""How much one request may queue: all of it is written in one transaction, and while that lasts nobody else writes."""

from __future__ import annotations

from collections.abc import Sequence

from gpuq.domain import batch_script
from gpuq.domain import sweep as sweeps
from gpuq.domain.array import parse_array
from gpuq.domain.spec import JobSpec
from gpuq.engine.context import IntakeContext
from gpuq.errors import GpuqError, TooLarge

# Bytes of the names and values of one job's variables. Linux takes 2 MiB in all by default, arguments included.
MAX_ENVIRONMENT = 1024 * 1024
# Characters of commands, environments and folders that one request may have stored: a second or so of writing.
MAX_STORED = 256 * 1024 * 1024
# Characters of one job's command. The kernel starts no program with more than 6 MiB of arguments, and everybody's
# listing shows them.
MAX_COMMAND = 2 * 1024 * 1024
# Of what every listing shows, too. No path is longer, and no machine has more GPUs.
_LONGEST = {"cwd": 4096, "gpu_model": 200, "gpu_ids": 1024, "signal": 64, "array": 1024 * 1024}


def check_size(ctx: IntakeContext, specs: Sequence[JobSpec]) -> None:
    """Raises TooLarge for more jobs than GPUQ_MAX_BATCH (each element of an array is one), as many jobs to wait for, a
    job with too large an environment or another field too long, and more than is written in a short time. Its `index`
    is that of a job that is too large by itself."""
    most = ctx.settings.max_batch
    # Jobs of a batch share one dictionary.
    sizes: dict[int, int] = {}
    jobs = dependencies = stored = 0
    for index, spec in enumerate(specs):
        try:
            check_lengths(spec)
        except TooLarge as error:
            error.index = index
            raise
        elements = _elements(spec, index) if spec.makes_many else 1
        size = 0
        if spec.env:
            size = sizes.get(id(spec.env), -1)
            if size < 0:
                size = sizes[id(spec.env)] = _environment(spec.env, index)
        jobs += elements
        if jobs > most:
            raise too_many_jobs(most)
        if spec.after or spec.after_any:
            dependencies += elements * (len(spec.after) + len(spec.after_any))
        stored += elements * (size + sum(map(len, spec.command)) + _length_of_others(spec))
    if dependencies > most:
        raise TooLarge(
            f"the jobs of one request may wait for at most {most} others in all, these for {dependencies}",
            hint="send the jobs in several requests, or let them wait for one job that waits for the others",
        )
    if stored > MAX_STORED:
        raise TooLarge(
            f"the jobs of this request take {stored >> 20} MiB in the database; at most {MAX_STORED >> 20} at once",
            hint="send the jobs in several requests, or give each less in its environment or its command",
        )


def check_lengths(spec: JobSpec) -> None:
    """Raises TooLarge for a job with a command, a folder or another field that is longer than anybody needs: everybody
    who looks at the queue is sent it."""
    length = sum(map(len, spec.command))
    if length > MAX_COMMAND:
        raise TooLarge(
            f"command: its arguments have {length} characters, at most {MAX_COMMAND} are kept",
            hint="give the job what is long as a file",
        )
    if spec.script is not None and 4 * len(spec.script) > batch_script.MAX_BYTES:
        in_bytes = len(spec.script.encode("utf-8", "surrogatepass"))
        if in_bytes > batch_script.MAX_BYTES:
            raise TooLarge(
                f"script: has {in_bytes} bytes, at most {batch_script.MAX_BYTES} are kept",
                hint="give the job what is long as a file, and let the script read that",
            )
    # Most jobs have none of the others.
    if len(spec.cwd or "") > _LONGEST["cwd"] or spec.gpu_model or spec.gpu_ids or spec.signal or spec.array:
        _check_others(spec)


def _check_others(spec: JobSpec) -> None:
    for name, most in _LONGEST.items():
        value = getattr(spec, name)
        if value is not None and len(value) > most:
            raise TooLarge(f"{name}: has a length of {len(value)}, at most {most} is kept")


def _length_of_others(spec: JobSpec) -> int:
    """The characters that a job takes in the database besides its command and its environment, about; the text of an
    array is stored with each of its elements."""
    length = len(spec.cwd or "") + len(spec.gpu_model or "") + len(spec.array or "") + len(spec.script or "")
    return length + 4 * len(spec.gpu_ids or ())


def too_many_jobs(most: int) -> TooLarge:
    """The error for a request with more than `most` jobs."""
    return TooLarge(
        f"one request queues at most {most} jobs",
        hint=f"send them in several: `split -l {most}` makes parts of a file for --from-file, and a long array can be"
        " cut, too; the limit is GPUQ_MAX_BATCH",
    )


def _elements(spec: JobSpec, index: int) -> int:
    if spec.sweep is not None and spec.array is None:
        # Not unfolded: there may be more than there is memory for.
        return sweeps.size(spec.sweep)
    try:
        return len(parse_array(spec.array or "").indices)
    except GpuqError as error:
        error.index = index
        raise


def _environment(env: dict[str, str], index: int) -> int:
    """Its size in characters. Raises TooLarge beyond MAX_ENVIRONMENT bytes."""
    size = sum(map(len, env)) + sum(map(len, env.values()))
    # A character has at most four bytes: most environments need not be encoded to be small enough.
    if 4 * size > MAX_ENVIRONMENT:
        in_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in (*env, *env.values()))
        if in_bytes > MAX_ENVIRONMENT:
            error = TooLarge(
                f"env: the variables of one job have {in_bytes} bytes, at most {MAX_ENVIRONMENT} are kept",
                hint="give large values to the job as a file",
            )
            error.index = index
            raise error
    return size
