"""`GET /metrics`: numbers as plain mappings in, the Prometheus text format out.

The names below are kept between releases. Nothing is counted here: every number is read from the record, which keeps
totals, so that counters survive a restart, several servers tell the same, and a scrape costs the same after a million
jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gpuq.domain.totals import WAIT_BOUNDS

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(stats: Mapping[str, Any]) -> bytes:
    """The page. Every key may be missing, and what is None is left out:

    `jobs`              state → how many jobs are in it now
    `gpus`              state → how many GPUs of this node are in it now
    `gpu_utilisation`   GPU index → 0 to 1 (None where unknown)
    `gpu_used_mb`       GPU index → MiB in use
    `gpu_holders`       (GPU index, job id, user) of each job on a GPU of this node
    `waiting`           priority → how many jobs of it wait, for whatever
    `user_running`, `user_waiting`, `user_gpus`   user → jobs that run, jobs that wait, GPUs held
    `stuck`             running jobs of this node that do not come to their end
    `disk_free_bytes`, `disk_bytes`   of the disk that output and records are on
    `attempts_finished` outcome → how many attempts ended so, ever
    `dead_letters`      how many stand in the dead-letter queue
    `queue_wait`        `{"counts": […], "count": n, "sum": seconds}`; `counts[i]` waits took at most `WAIT_BOUNDS[i]` s
    `agent_heartbeat_age_s`  seconds since the agent was last heard
    `maintenance`       task → `{"last_ok": epoch seconds or None, "last_error": epoch seconds or None}`
    `paused`            whether no new job may start
    `ready`             whether one could be started, as `/readyz` says
    `version`           of gpuq
    """
    # At the first scrape, not at every start: inside the server it takes some 15 ms and a megabyte.
    from prometheus_client import CollectorRegistry, generate_latest

    class _Page:
        def collect(self) -> Iterator[Metric]:
            return _families(stats)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page())
    return generate_latest(registry)


_LABELLED_GAUGES = (
    ("jobs", "gpuq_jobs", "Jobs by state.", "state", 1),
    ("gpus", "gpuq_gpus", "GPUs of this node by state.", "state", 1),
    ("gpu_utilisation", "gpuq_gpu_utilisation_ratio", "GPU utilisation, 0 to 1.", "gpu", 1),
    ("gpu_used_mb", "gpuq_gpu_memory_used_bytes", "GPU memory in use.", "gpu", 1024 * 1024),
    ("waiting", "gpuq_waiting_jobs", "Jobs that wait, for whatever, by priority.", "priority", 1),
    ("user_running", "gpuq_user_running_jobs", "Jobs that run, by user; beyond 50 users: `other`.", "user", 1),
    ("user_waiting", "gpuq_user_waiting_jobs", "Jobs that wait, by user; beyond 50 users: `other`.", "user", 1),
    ("user_gpus", "gpuq_user_gpus", "GPUs held, by user; beyond 50 users: `other`.", "user", 1),
)
_PLAIN_GAUGES = (
    ("dead_letters", "gpuq_dead_letters", "Jobs in the dead-letter queue."),
    ("agent_heartbeat_age_s", "gpuq_agent_heartbeat_age_seconds", "Seconds since the agent was last heard."),
    ("paused", "gpuq_queue_paused", "1 while no new job may start."),
    ("stuck", "gpuq_stuck_jobs", "Jobs that do not come to their end; `gpuq doctor` says why."),
    ("disk_free_bytes", "gpuq_disk_free_bytes", "Free for users on the disk of gpuq's home."),
    ("disk_bytes", "gpuq_disk_size_bytes", "Size of the disk of gpuq's home."),
    ("ready", "gpuq_ready", "1 while jobs can be started; 0: nothing can, `/readyz` says why."),
)


def _families(stats: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for key, name, text, label, factor in _LABELLED_GAUGES:
        known = {at: value for at, value in (stats.get(key) or {}).items() if value is not None}
        if known:
            family = GaugeMetricFamily(name, text, labels=[label])
            for at, value in known.items():
                family.add_metric([str(at)], value * factor)
            yield family
    if stats.get("gpu_holders"):
        # Not `job`: that label is Prometheus' own name of the scrape.
        holders = GaugeMetricFamily("gpuq_gpu_holder_info", "Always 1.", labels=["gpu", "job_id", "user"])
        for holder in stats["gpu_holders"]:
            holders.add_metric([str(part) for part in holder], 1)
        yield holders
    for key, name, text in _PLAIN_GAUGES:
        if stats.get(key) is not None:
            yield GaugeMetricFamily(name, text, value=float(stats[key]))
    if stats.get("attempts_finished"):
        counter = CounterMetricFamily("gpuq_attempts_finished", "Attempts ended, by outcome.", labels=["outcome"])
        for outcome, value in stats["attempts_finished"].items():
            counter.add_metric([str(outcome)], value)
        yield counter
    if stats.get("version") is not None:
        version = GaugeMetricFamily("gpuq_build_info", "Always 1; the version is the label.", labels=["version"])
        version.add_metric([str(stats["version"])], 1)
        yield version
    yield from _waits(stats)
    yield from _maintenance(stats)


def _waits(stats: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    waits = stats.get("queue_wait")
    if not waits:
        return
    buckets = [(str(float(bound)), float(count)) for bound, count in zip(WAIT_BOUNDS, waits["counts"], strict=True)]
    buckets.append(("+Inf", float(waits["count"])))
    yield HistogramMetricFamily(
        "gpuq_queue_wait_seconds", "From submission to first start.", buckets=buckets, sum_value=float(waits["sum"])
    )


def _maintenance(stats: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    tasks: Mapping[str, Mapping[str, Any]] = stats.get("maintenance") or {}
    for key, text in (("last_ok", "succeeded"), ("last_error", "failed")):
        known = {task: state[key] for task, state in tasks.items() if state.get(key) is not None}
        if known:
            family = GaugeMetricFamily(
                f"gpuq_maintenance_{key}_timestamp_seconds", f"When each maintenance task last {text}.", labels=["task"]
            )
            for task, at in known.items():
                family.add_metric([task], at)
            yield family
