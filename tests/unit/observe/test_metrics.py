from __future__ import annotations

import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from gpuq.observe.metrics import WAIT_BOUNDS, render


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_every_number_comes_out_under_its_name() -> None:
    found = samples(
        render(
            {
                "jobs": {"queued": 3, "running": 2},
                "gpus": {"free": 1, "leased": 3},
                "gpu_utilisation": {0: 0.5, 1: None},
                "gpu_used_mb": {0: 2},
                "attempts_finished": {"succeeded": 7, "gpu_oom": 1},
                "dead_letters": 4,
                "agent_heartbeat_age_s": 0.25,
                "maintenance": {"reap": {"last_ok": 1700000000.5, "last_error": 5.0}, "retain": {"last_ok": None}},
                "gpu_holders": [(0, 7, "alice"), (0, 8, 'b"ob')],
                "waiting": {"high": 0, "low": 3},
                "user_running": {"alice": 1},
                "user_waiting": {"alice": 2},
                "user_gpus": {"alice": 4},
                "stuck": 1,
                "disk_free_bytes": 5,
                "disk_bytes": 10,
                "paused": True,
                "ready": False,
                "version": "0.1.0",
            }
        )
    )
    assert found == {
        ("gpuq_jobs", (("state", "queued"),)): 3,
        ("gpuq_jobs", (("state", "running"),)): 2,
        ("gpuq_gpus", (("state", "free"),)): 1,
        ("gpuq_gpus", (("state", "leased"),)): 3,
        ("gpuq_gpu_utilisation_ratio", (("gpu", "0"),)): 0.5,
        ("gpuq_gpu_memory_used_bytes", (("gpu", "0"),)): 2 * 2**20,
        ("gpuq_attempts_finished_total", (("outcome", "succeeded"),)): 7,
        ("gpuq_attempts_finished_total", (("outcome", "gpu_oom"),)): 1,
        ("gpuq_dead_letters", ()): 4,
        ("gpuq_agent_heartbeat_age_seconds", ()): 0.25,
        ("gpuq_maintenance_last_ok_timestamp_seconds", (("task", "reap"),)): 1700000000.5,
        ("gpuq_maintenance_last_error_timestamp_seconds", (("task", "reap"),)): 5,
        ("gpuq_gpu_holder_info", (("gpu", "0"), ("job_id", "7"), ("user", "alice"))): 1,
        ("gpuq_gpu_holder_info", (("gpu", "0"), ("job_id", "8"), ("user", 'b"ob'))): 1,
        ("gpuq_waiting_jobs", (("priority", "high"),)): 0,
        ("gpuq_waiting_jobs", (("priority", "low"),)): 3,
        ("gpuq_user_running_jobs", (("user", "alice"),)): 1,
        ("gpuq_user_waiting_jobs", (("user", "alice"),)): 2,
        ("gpuq_user_gpus", (("user", "alice"),)): 4,
        ("gpuq_stuck_jobs", ()): 1,
        ("gpuq_disk_free_bytes", ()): 5,
        ("gpuq_disk_size_bytes", ()): 10,
        ("gpuq_queue_paused", ()): 1,
        ("gpuq_ready", ()): 0,
        ("gpuq_build_info", (("version", "0.1.0"),)): 1,
    }


def test_waits_become_a_cumulative_histogram() -> None:
    found = samples(render({"queue_wait": {"counts": [2, 2, 2] + [3] * 8, "count": 4, "sum": 1e9 + 21.5}}))
    buckets = [found["gpuq_queue_wait_seconds_bucket", (("le", str(float(bound))),)] for bound in WAIT_BOUNDS]
    assert buckets == [2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert found["gpuq_queue_wait_seconds_bucket", (("le", "+Inf"),)] == 4
    assert found["gpuq_queue_wait_seconds_count", ()] == 4
    assert found["gpuq_queue_wait_seconds_sum", ()] == 1e9 + 21.5


def test_what_is_unknown_is_left_out() -> None:
    assert render({}) == b""
    assert render({"dead_letters": None, "jobs": {}, "agent_heartbeat_age_s": None}) == b""


def test_labels_with_odd_characters_are_escaped() -> None:
    found = samples(render({"maintenance": {'a"b\\c\nd': {"last_ok": 1.0}}}))
    assert found["gpuq_maintenance_last_ok_timestamp_seconds", (("task", 'a"b\\c\nd'),)] == 1.0


def test_the_library_is_not_loaded_before_the_first_scrape() -> None:
    code = "import sys, gpuq.observe.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
