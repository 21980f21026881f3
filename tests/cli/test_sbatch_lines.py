"""`#SBATCH` lines: what each option means here, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from stub_daemon import Answer, Asked, Gpuq, StubDaemon, job

from gpuq.cli.parse import sbatch, script
from gpuq.cli.parse.command_table import JOB
from gpuq.errors import UsageError

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "slurm.md"


@pytest.fixture
def taking(daemon: StubDaemon) -> StubDaemon:
    def take(asked: Asked) -> Answer:
        return Answer(201, job(1, name=asked.body.get("name") or "true"))

    daemon.on("POST", "/jobs", take)
    return daemon


def sent(daemon: StubDaemon) -> Any:
    [asked] = daemon.seen("POST", "/jobs")
    return asked.body


def meaning(*lines: str) -> dict[str, list[str]]:
    found = sbatch.read("job.sh", [(number, line) for number, line in enumerate(lines, 2)])
    if not re.search("--g|-G", "".join(lines)):
        del found["gpus"]
    return found


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("--job-name=bert", {"name": "bert"}),
        ("-J bert", {"name": "bert"}),
        ("-Jbert", {"name": "bert"}),
        ("--job-name 'two words'   # a comment", {"name": "two words"}),
        ("--gres=gpu:2", {"gpus": "2"}),
        ("--gres gpu", {"gpus": "1"}),
        ("--gres=gpu:a100:4", {"gpus": "4", "gpu_model": "a100"}),
        ("--gres=gres/gpu:3", {"gpus": "3"}),
        ("--gres=none", {"gpus": "0"}),
        ("--gpus=a100:2", {"gpus": "2", "gpu_model": "a100"}),
        ("-G 3", {"gpus": "3"}),
        ("--gpus-per-node=8", {"gpus": "8"}),
        ("--gpus-per-task=1", {"gpus": "1"}),
        ("--time=30", {"time": "1800s"}),
        ("--time=30:15", {"time": "1815s"}),
        ("-t 2:00:00", {"time": "7200s"}),
        ("-t 1-12", {"time": "129600s"}),
        ("-t 1-0:30", {"time": "88200s"}),
        ("-t 1-12:00:01", {"time": "129601s"}),
        ("-t UNLIMITED", {}),
        ("--array=0-15:2%4", {"array": "0-15:2%4"}),
        ("--dependency=afterok:7:9", {"after": "7,9"}),
        ("-d afterok:7,afterany:8,afterok:9", {"after": "7,9", "after_any": "8"}),
        ("--begin=now+2hours", {"begin": "2h"}),
        ("--begin=now+60", {"begin": "60s"}),
        ("--begin=18:30", {"begin": "18:30"}),
        ("--hold", {"hold": ""}),
        ("-D /data", {"chdir": "/data"}),
        ("--signal=B:USR1@120", {"signal": "USR1@120"}),
        ("--signal=10", {"signal": "USR1@60"}),
        ("--export=ALL", {}),
        ("--export=NONE", {"env_none": ""}),
        ("--nodes=1 -n1 --ntasks-per-node=1", {}),
        ("--no-requeue", {"retries": "0"}),
        ("--kill-on-invalid-dep=no", {"keep_waiting": ""}),
        ("--kill-on-invalid-dep=yes", {}),
        ("--requeue --comment='what it is' -v", {}),
    ],
)
def test_what_an_option_means_here(line: str, means: dict[str, str]) -> None:
    assert meaning(line) == {name: [value] for name, value in means.items()}


def test_variables_are_exported() -> None:
    assert meaning("--export=ALL,A=1,B=2")["env"] == ["A=1", "B=2"]


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("--output=%j.out", "--output"), ("-o x", "-o"), ("-ox", "-o"), ("--error x", "--error"),
        ("--partition=gpu", "--partition"), ("-p gpu", "-p"), ("--account=x", "--account"), ("--qos=high", "--qos"),
        ("--nodes=2", "--nodes"), ("--ntasks=8", "--ntasks"), ("--mail-type=END", "--mail-type"),
        ("--dependency=afternotok:3", "--dependency"), ("--dependency=singleton", "--dependency"),
        ("--dependency=afterok:3?afterok:4", "--dependency"), ("--gres=tmp:100G", "--gres"), ("-t soon", "-t"),
        ("--gres=gpu:1,tmp:1", "--gres"), ("--gpus=many:x", "--gpus"), ("--export=NONE,A=1", "--export"),
        ("--exclusive", "--exclusive"), ("--licenses=x", "--licenses"), ("-Z", "-Z"), ("--hold=yes", "--hold"),
        ("--begin=now+2fortnights", "--begin"), ("--time", "--time"), ("-", "'-'"), ("hetjob", "'hetjob'"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_here_is_refused_by_name(line: str, flag: str) -> None:
    with pytest.raises(UsageError) as refused:
        meaning("--job-name=a", line)
    assert f"{flag} (line 3): " in refused.value.message or flag in {"-", "'-'"}
    assert "--ignore-directives" in (refused.value.hint or "")


def test_all_that_is_refused_is_told_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        meaning("--output=x --partition=gpu", "-A me")
    assert re.findall(r"(-[-\w]+) \(line (\d)\)", refused.value.message) == [
        ("--output", "2"),
        ("--partition", "2"),
        ("-A", "3"),
    ]


def test_slurm_lines_lie_under_gpuq_lines_and_those_under_the_command_line(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "job.sh").write_text(
        "#!/bin/bash\n#GPUQ -g 2 --env B=2\n#SBATCH --gres=gpu:4 --time=10\n##SBATCH --partition=x\n"
        "#SBATCH -J slurm --export=ALL,A=1,B=1\n#SBATCHX\necho\n"
    )
    done = gpuq("submit", "-n", "mine", "job.sh")
    assert (done.code, done.err) == (0, "")
    body = sent(taking)
    assert (body["gpus"], body["time_limit_s"], body["name"]) == (2, 600, "mine")
    assert (body["env"]["A"], body["env"]["B"]) == ("1", "2")


def test_script_of_slurm_that_asks_for_no_gpu_gets_none(gpuq: Gpuq, taking: StubDaemon) -> None:
    assert gpuq("submit", "-", stdin="#!/bin/bash\n#SBATCH -J a\ntrue\n").code == 0
    assert sent(taking)["gpus"] == 0


def test_directives_are_ignored_when_asked(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "job.sh").write_text("#!/bin/bash\n#GPUQ -g 2\n#SBATCH --partition=x\necho\n")
    refused = gpuq("submit", "job.sh")
    assert (refused.code, len(refused.err.splitlines())) == (2, 2)
    assert gpuq("submit", "--ignore-directives", "job.sh").code == 0
    body = sent(taking)
    assert "gpus" not in body
    assert body["script"].endswith("echo\n")


def test_late_line_is_told(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "job.sh").write_text("#!/bin/bash\n#SBATCH -G 1\necho\n#SBATCH -G 2\n")
    done = gpuq("submit", "job.sh")
    assert (done.code, sent(taking)["gpus"]) == (0, 1)
    assert "job.sh line 4: a #SBATCH line after the first command is not read" in done.err


def test_table_of_the_page_names_every_option_with_its_answer() -> None:
    rows = re.findall(r"^\| (`--[^|]+) \| (\w+)", PAGE.read_text(), re.MULTILINE)
    told = {name: answer for names, answer in rows for name in re.findall(r"`--([\w-]+)", names)}
    assert told.keys() == {option[0] for option in sbatch.OPTIONS}
    for name, _, read, _ in sbatch.OPTIONS:
        counted = {"cpus-per-task": "cpus", "mem": "mem"}.get(name) in {option.name for option in JOB}
        if told[name] == "refused" and not counted:
            with pytest.raises(Exception, match=r"\w"):
                read("x")


def test_bound_of_a_script_is_that_of_a_submission() -> None:
    from gpuq.domain import batch_script

    assert script.MAX_BYTES == batch_script.MAX_BYTES
