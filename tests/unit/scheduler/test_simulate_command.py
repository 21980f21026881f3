"""`gpuq simulate`."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gpuq.cli.__main__ import main

DATA = Path(__file__).parent / "data"
FIELDS = {
    "jobs", "mean_wait_s", "median_wait_s", "p95_wait_s", "max_wait_s", "mean_jct_s", "utilisation", "makespan_s",
    "largest_max_wait_s",
}  # fmt: skip


class Ran(NamedTuple):
    code: int
    stdout: str
    stderr: str


Simulate = Callable[..., Ran]


@pytest.fixture
def simulate(capsys: pytest.CaptureFixture[str]) -> Simulate:
    def run(*words: str) -> Ran:
        code = main(["simulate", *words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.csv"
    path.write_text(
        "submit_s,duration_s,gpus,user,status,limit_s,priority\n"
        "0,100,2,a,completed,,\n"
        "1,50,1,a,killed,20,normal\n"
        "2,10,2,b,,,critical\n"
        "3,5,3,b,,,\n"
        "4,7,0,c,,,2\n"
    )
    return path


def test_the_document_has_the_promised_fields(simulate: Simulate, small: Path) -> None:
    result = simulate(str(small), "--gpus", "2", "--json")
    numbers = json.loads(result.stdout)
    assert numbers.keys() >= FIELDS
    assert numbers["jobs"] == 4
    assert numbers["left_out"] == 1
    assert "1 jobs ask for more than 2 GPUs" in result.stderr


def test_the_schedule_names_rows_nodes_and_gpus(simulate: Simulate, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "schedule.csv"
    result = simulate(str(small), "--gpus", "2", "--order", "fifo", "--backfill", "none", "--out", str(out))
    assert result.code == 0
    with out.open() as file:
        rows = {int(row["row"]): row for row in csv.DictReader(file)}
    assert list(rows) == [0, 1, 2, 4]
    assert rows[0] == {"row": "0", "start_s": "0.0", "end_s": "100.0", "node": "0", "gpus": "0;1"}
    assert (rows[2]["start_s"], rows[1]["start_s"], rows[1]["end_s"]) == ("100.0", "110.0", "130.0")
    assert (rows[4]["start_s"], rows[4]["gpus"]) == ("4.0", "")


def test_people_get_a_table(simulate: Simulate, small: Path) -> None:
    result = simulate(str(small), "--gpus", "8")
    assert "mean_wait_s" in result.stdout
    assert "utilisation" in result.stdout


def test_two_nodes_run_what_one_cannot(simulate: Simulate, small: Path) -> None:
    one = json.loads(simulate(str(small), "--gpus", "2", "--json").stdout)
    two = json.loads(simulate(str(small), "--gpus", "2", "--nodes", "2", "--json").stdout)
    assert two["max_wait_s"] < one["max_wait_s"]


def test_a_gzipped_trace_is_read_whatever_its_name(simulate: Simulate, small: Path, tmp_path: Path) -> None:
    packed = tmp_path / "trace.bin"
    packed.write_bytes(gzip.compress(small.read_bytes()))
    assert simulate(str(packed), "--json").stdout == simulate(str(small), "--json").stdout


def test_an_empty_trace_gives_zeros(simulate: Simulate, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("submit_s,duration_s,gpus,user\n")
    assert json.loads(simulate(str(path), "--json").stdout)["jobs"] == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n", "no column submit_s, duration_s, gpus"),
        ("submit_s,duration_s,gpus,user\n0,1,1,a\n0,x,1,a\n", "line 3: duration_s is 'x'"),
        ("submit_s,duration_s,gpus,user\n0,1,1.5,a\n", "line 2: gpus is '1.5', not a whole number"),
        ("submit_s,duration_s,gpus,user\n-1,1,1,a\n", "submit_s is '-1'"),
        ("submit_s,duration_s,gpus,user\n0,nan,1,a\n", "duration_s is 'nan'"),
        ("submit_s,duration_s,gpus,user\n0,1\n", "gpus is ''"),
        ("submit_s,duration_s,gpus,user,priority\n0,1,1,a,urgent\n", "unknown priority 'urgent'"),
        ("submit_s,duration_s,gpus,user,limit_s\n0,1,1,a,0\n", "limit_s is '0', not a number above 0"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(simulate: Simulate, tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    result = simulate(str(path))
    assert result.code == 2
    assert complaint in result.stderr


def test_unreadable_files_are_refused(simulate: Simulate, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(b"\x1f\x8bnot gzip at all")
    for path in (tmp_path / "none.csv", broken, tmp_path):
        result = simulate(str(path))
        assert (result.code, f"cannot read the trace {path}" in result.stderr) == (2, True)


def test_a_schedule_that_cannot_be_written_is_said(simulate: Simulate, small: Path, tmp_path: Path) -> None:
    result = simulate(str(small), "--out", str(tmp_path / "no" / "folder.csv"))
    assert result.code == 2
    assert "cannot write the schedule" in result.stderr


def test_a_plot_without_matplotlib_says_what_to_install(
    simulate: Simulate, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = simulate(str(small), "--plot", "out.png")
    assert result.code == 2
    assert result.stderr.endswith("hint: install it with: pip install 'gpu-job-queue[plot]'\n")


def test_a_plot_is_drawn(simulate: Simulate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out.png"
    assert simulate(str(DATA / "tiresias-60.csv.gz"), "--plot", str(out)).code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_with_ageing_a_job_of_low_priority_passes_those_that_come_a_step_later(
    simulate: Simulate, tmp_path: Path
) -> None:
    path = tmp_path / "aging.csv"
    path.write_text(
        "submit_s,duration_s,gpus,user,limit_s,priority\n"
        "0,5000,1,a,6000,normal\n1,100,1,a,6000,low\n3000,100,1,b,6000,normal\n4000,100,1,b,6000,normal\n"
    )

    def order_of_starts(*options: str) -> list[str]:
        out = tmp_path / "out.csv"
        assert simulate(str(path), "--gpus", "1", "--out", str(out), *options).code == 0
        with out.open() as file:
            return [row["row"] for row in sorted(csv.DictReader(file), key=lambda row: float(row["start_s"]))]

    assert order_of_starts() == ["0", "2", "3", "1"]
    assert order_of_starts("--priority-aging", "0") == order_of_starts()
    assert order_of_starts("--priority-aging", "1h") == ["0", "2", "1", "3"]
    assert order_of_starts("--priority-aging", "30m") == ["0", "1", "2", "3"]


def test_with_spacing_a_users_first_job_passes_anothers_flood(simulate: Simulate, tmp_path: Path) -> None:
    path = tmp_path / "flood.csv"
    rows = "".join(f"{n},100,1,a\n" for n in range(6))
    path.write_text(f"submit_s,duration_s,gpus,user\n{rows}10,100,1,b\n")

    def place_of_hers(*options: str) -> int:
        out = tmp_path / "out.csv"
        assert simulate(str(path), "--gpus", "1", "--out", str(out), *options).code == 0
        with out.open() as file:
            starts = sorted((float(row["start_s"]), row["row"]) for row in csv.DictReader(file))
        return [row for _, row in starts].index("6")

    assert place_of_hers() == 6
    assert place_of_hers("--user-spacing", "1m") == 2
