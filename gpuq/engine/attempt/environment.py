"""The environment and the supervisor's spec of an attempt: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuq.domain import batch_script
from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.domain.gpu import Gpu
from gpuq.domain.results import RESULT, SHORT_RESULT
from gpuq.domain.spec import JobSpec
from gpuq.domain.stopping import effective_grace_s, notice_of
from gpuq.domain.sweep import VARIABLE
from gpuq.engine.attempt.tracked import TrackedAttempt


def job_environment(
    spec: JobSpec, tracked: TrackedAttempt, gpus: Sequence[Gpu], *, home: str, checkpoint_dir: str
) -> dict[str, str]:
    """The submitter's variables, then ours over them. A time limit is counted from the claim."""
    job = tracked.job
    env = dict(spec.env)
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    env.update(_of_gpus(gpus))
    env.update(
        {
            # So that `gpuq` inside a job finds this daemon.
            "GPUQ_HOME": home,
            "GPUQ_JOB_ID": str(job.id),
            "GPUQ_JOB_NAME": job.name,
            "GPUQ_ATTEMPT": str(tracked.number),
            "GPUQ_RUN_DIR": tracked.run_dir,
            "GPUQ_CHECKPOINT_DIR": checkpoint_dir,
            "GPUQ_RESULT_FILE": f"{tracked.run_dir}/{RESULT}",
            "GPUQ_SHORT_RESULT_FILE": f"{tracked.run_dir}/{SHORT_RESULT}",
            "PYTHONUNBUFFERED": "1",
            MARK: mark_of(tracked.token),
        }
    )
    # Those that only some jobs have: what the submitter's own environment says of them is another job's.
    for name in ("GPUQ_ARRAY_ID", "GPUQ_ARRAY_INDEX", "GPUQ_TIME_LIMIT_END"):
        env.pop(name, None)
    if job.array_id is not None:
        env["GPUQ_ARRAY_ID"] = str(job.array_id)
        env["GPUQ_ARRAY_INDEX"] = str(job.array_index)
    for name in [name for name in env if name.startswith(VARIABLE)]:
        del env[name]
    for name, value in job.parameters or ():
        env[VARIABLE + name] = value
    if job.time_limit_s is not None:
        env["GPUQ_TIME_LIMIT_END"] = f"{tracked.claimed_at + job.time_limit_s:.0f}"
    return env


def _argv(spec: JobSpec, tracked: TrackedAttempt) -> list[str]:
    # Of a sweep, the row has the command with its values, and the submission the one that all of it share.
    command = spec.command if tracked.job.parameters is None else tracked.job.command
    return list(command) if spec.script is None else batch_script.argv(spec.script, tracked.run_dir, command)


def _of_gpus(gpus: Sequence[Gpu]) -> dict[str, str]:
    simulated = any(gpu.simulated for gpu in gpus)
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu.index) if simulated else gpu.uuid for gpu in gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "GPUQ_GPU_COUNT": str(len(gpus)),
        "GPUQ_GPUS": ",".join(str(gpu.index) for gpu in gpus),
    }


def supervisor_spec(
    spec: JobSpec,
    tracked: TrackedAttempt,
    env: dict[str, str],
    *,
    uid: int | None,
    gid: int | None,
    kill_grace_s: float,
    hide_devices: Sequence[str] = (),
    max_output_bytes: int | None = None,
    max_result_bytes: int = 0,
    checkpoint_dir: str | None = None,
) -> dict[str, Any]:
    """What `spec.json` of the attempt holds. `kill_grace_s`: of the installation, for a job without its own.
    `hide_devices`: paths of device nodes that the job must not be able to open. `max_output_bytes` None: it may write
    as much as it likes. `max_result_bytes`: of its result; 0: no limit. `checkpoint_dir` is removed at the end of the
    attempt when it is empty then."""
    job = tracked.job
    name, before_s = notice_of(spec.signal)
    return {
        "schema": 1,
        "job_id": job.id,
        "attempt": tracked.number,
        "token": tracked.token,
        "argv": _argv(spec, tracked),
        "env": env,
        "cwd": job.cwd,
        "uid": uid,
        "gid": gid,
        "user": job.user,
        "time_limit_s": job.time_limit_s,
        "kill_grace_s": effective_grace_s(spec.kill_grace_s, kill_grace_s),
        "max_output_bytes": max_output_bytes,
        "max_result_bytes": max_result_bytes,
        "signal": None if name is None else {"name": name, "before_s": before_s},
        "umask": spec.umask,
        "limits": spec.limits,
        "nice": spec.nice,
        "hide_devices": list(hide_devices),
        "checkpoint_dir": checkpoint_dir,
    }
