"""The rules for Prometheus, the Grafana board and the page about both speak of what `/metrics` has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import gpuq
from gpuq.cli.__main__ import main
from gpuq.domain.gpu import GpuState
from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState

CONTRIB = Path(gpuq.__file__).parent / "contrib"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "monitoring.md"
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bgpuq_[a-z_]+\b", text))


def rules() -> str:
    return (CONTRIB / "alerts.yml").read_text()


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONTRIB / "grafana.json").read_text())
    return found


def expressions() -> list[str]:
    """All that Prometheus is asked: by rules, panels and the board's own variables."""
    asked = re.findall(r"^ +expr: (.+)$", rules(), re.MULTILINE)
    asked += [target["expr"] for panel in board()["panels"] for target in panel["targets"]]
    return [*asked, *(v["definition"] for v in board()["templating"]["list"] if v["type"] == "query")]


@pytest.fixture
def samples(api: Any, start: Callable[..., Any]) -> list[Any]:
    """Of an answer in which nothing is missing: a job runs, one waits, one has failed, and so has a task."""

    def submit() -> int:
        answer = api.daemon.post("/jobs", json={"command": ["x"], "cwd": "/", "gpus": 1})
        return int(answer.json()["id"])

    start(submit()).end(Outcome.EXIT_NONZERO, JobState.FAILED, exit_code=3)
    start(submit())
    submit()
    now = api.ctx.clock.now()
    api.ctx.maintenance_runs.note_start("reap", now)
    api.ctx.maintenance_runs.note_ok("reap", now)
    api.ctx.maintenance_runs.note_error("reap", now, "x")
    api.app.state.agent = SimpleNamespace(last_turn_at=now)
    page = api.daemon.get("/metrics").text
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def test_every_metric_that_is_asked_for_is_there_with_the_labels_that_are_asked_for(samples: list[Any]) -> None:
    there: dict[str, set[str]] = {}
    for sample in samples:
        there.setdefault(sample.name, {"instance"}).update(sample.labels)
    asked = " ".join(expressions())
    assert len(names_in(asked)) > 15
    assert names_in(asked) - set(there) == set()
    for name, matchers in re.findall(r"\b(gpuq_[a-z_]+)\{([^}]*)\}", asked):
        assert set(re.findall(r"(\w+)[=!]", matchers)) <= there[name], name
    for states, known in (
        (r"gpuq_jobs\{[^}]*\bstate[=!]~?\"([^\"]+)", JobState),
        (r"gpuq_gpus\{[^}]*\bstate=\"([^\"]+)", GpuState),
    ):
        named = {state for found in re.findall(states, asked) for state in found.split("|")}
        assert named
        assert named <= {str(state) for state in known}


def test_every_metric_stands_on_the_page_about_monitoring_and_no_other(samples: list[Any]) -> None:
    there = {re.sub(r"(?<=gpuq_queue_wait_seconds)_(bucket|count|sum)$", "", sample.name) for sample in samples}
    table = PAGE.read_text().partition("## What there is")[2]
    assert names_in(table) == there
    alerts = set(re.findall(r"alert: (\w+)", rules()))
    assert alerts == set(re.findall(r"^\| `(Gpuq\w+)`", PAGE.read_text(), re.MULTILINE))


def test_every_part_of_the_board_takes_the_data_source_that_is_chosen() -> None:
    found = board()
    [source] = [one for one in found["templating"]["list"] if one["type"] == "datasource"]
    assert (source["name"], source["query"]) == ("datasource", "prometheus")
    assert len(found["panels"]) > 10
    for panel in found["panels"]:
        assert panel["datasource"] == DATA_SOURCE, panel["title"]
        assert [target["datasource"] for target in panel["targets"]] == [DATA_SOURCE] * len(panel["targets"])
    assert all(one["datasource"] == DATA_SOURCE for one in found["templating"]["list"] if one["type"] == "query")
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])


def test_no_two_panels_lie_on_each_other() -> None:
    def cells() -> Iterator[tuple[int, int]]:
        for panel in board()["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            yield from ((at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"]))

    found = list(cells())
    assert len(found) == len(set(found))


def test_every_rule_says_what_is_wrong_how_bad_it_is_and_what_to_do() -> None:
    parts = rules().split("- alert: ")[1:]
    for part in parts:
        for word in ("expr: ", "labels: {severity: ", "summary: ", "description: "):
            assert part.count(word) == 1, part


def test_the_command_prints_the_files_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    for word, name in (("alerts", "alerts.yml"), ("grafana", "grafana.json")):
        assert main(["contrib", word]) == 0
        assert capsys.readouterr().out == (CONTRIB / name).read_text()
    assert main(["contrib", "../settings"]) == 2
    assert "there are: alerts, grafana" in capsys.readouterr().err


TIMES = """
rule_files: [alerts.yml]
tests:
  - interval: 1m
    input_series:
      - {series: 'gpuq_gpus{instance="box", state="free"}', values: '2x60'}
      - {series: 'gpuq_jobs{instance="box", state="queued"}', values: '0x10 1x60'}
      - {series: 'gpuq_ready{instance="box"}', values: '1x20 0x60'}
      - {series: 'gpuq_dead_letters{instance="box"}', values: '0+1x60'}
      - {series: 'gpuq_disk_free_bytes{instance="box"}', values: '50e9x60'}
      - {series: 'gpuq_disk_size_bytes{instance="box"}', values: '2000e9x60'}
    alert_rule_test:
      - {eval_time: 24m, alertname: GpuqNotReady}
      - {eval_time: 30m, alertname: GpuqGpusIdleWhileJobsWait}
      - eval_time: 27m
        alertname: GpuqNotReady
        exp_alerts:
          - exp_labels: {severity: critical, instance: box}
            exp_annotations:
              summary: gpuq on box starts no jobs
              description: >-
                The database, Redis, the agent or the disk does not do its work. `gpuq doctor` says which,
                and what to do.
      - eval_time: 45m
        alertname: GpuqGpusIdleWhileJobsWait
        exp_alerts:
          - exp_labels: {severity: warning, instance: box}
            exp_annotations:
              summary: 2 GPUs on box are free although jobs wait
              description: >-
                A large job may be gathering GPUs, or a limit holds jobs back. `gpuq why ID` of the first in
                line says which.
      - eval_time: 11m
        alertname: GpuqDiskLow
        exp_alerts:
          - exp_labels: {severity: warning, instance: box}
            exp_annotations:
              summary: The disk of gpuq's home on box is nearly full
              description: >-
                When it is full nothing new starts. `gpuq report disk` says whose output takes it, `gpuq clean`
                removes some.
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_rules_and_gives_alarm_when_it_should(tmp_path: Path) -> None:
    shutil.copy(CONTRIB / "alerts.yml", tmp_path)
    (tmp_path / "times.yml").write_text(TIMES)
    # What the board asks is checked in the form of rules; JSON is YAML.
    asked = [{"record": "x", "expr": target["expr"]} for panel in board()["panels"] for target in panel["targets"]]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": asked}]}))
    for words in (["check", "rules", "--lint=none", "alerts.yml", "board.yml"], ["test", "rules", "times.yml"]):
        done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
