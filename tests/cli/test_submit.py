from __future__ import annotations

import json
from typing import Any

import pytest
from stub_daemon import Answer, Asked, Gpuq, StubDaemon, failure, job


@pytest.fixture
def taking(daemon: StubDaemon) -> StubDaemon:
    """Queues whatever it is given, ids from 1."""

    def take(asked: Asked) -> Answer:
        if "jobs" in asked.body:
            return Answer(201, [job(number) for number in range(1, len(asked.body["jobs"]) + 1)])
        return Answer(201, job(1, name=asked.body.get("name") or "true", position=3))

    daemon.on("POST", "/jobs", take)
    return daemon


def sent(daemon: StubDaemon) -> Any:
    [asked] = daemon.seen("POST", "/jobs")
    return asked.body


def test_every_option_arrives_as_its_field(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq(
        "submit", "-g", "2", "--gpu-mem", "18G", "--gpu-model", "A100", "--gpu-ids", "0,2", "-p", "high", "-n", "bert",
        "--group", "nlp", "-t", "1-12:00:00", "--retries", "5", "--after", "3,4", "--after-any", "5", "--begin",
        "2030-01-01T00:00:00+00:00", "--array", "0-15:2%4", "--hold", "--key", "k1", "--preemptible", "--signal",
        "SIGUSR1@60", "--kill-grace", "2m", "--env", "K=V=W", "--", "true", "-x",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    body = {name: value for name, value in sent(taking).items() if name not in {"umask", "limits", "nice"}}
    assert body.pop("env")["K"] == "V=W"
    assert body == {
        "command": ["true", "-x"], "cwd": str(gpuq.work), "gpus": 2, "gpu_mem_mb": 18432, "gpu_model": "A100",
        "gpu_ids": [0, 2], "priority": "high", "name": "bert", "group": "nlp", "time_limit_s": 129600.0,
        "max_retries": 5, "after": [3, 4], "after_any": [5], "begin": 1893456000.0, "array": "0-15:2%4", "hold": True,
        "key": "k1", "preemptible": True, "signal": "USR1@60", "kill_grace_s": 120.0,
    }  # fmt: skip


def test_what_is_not_named_is_left_to_the_daemon(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "true")
    assert (done.code, done.out) == (0, "job 1 (true) is queued, position 3\n")
    assert set(sent(taking)) - {"umask", "nice"} == {"command", "cwd", "env", "limits"}


def test_parsable_prints_the_id_alone(gpuq: Gpuq, taking: StubDaemon) -> None:
    assert gpuq("submit", "--parsable", "true").out == "1\n"


def test_parsable_prints_the_one_id_that_stands_for_an_array(gpuq: Gpuq, daemon: StubDaemon) -> None:
    elements = [job(7 + index, array_id=7, array_index=index) for index in range(4)]
    daemon.on("POST", "/jobs", Answer(201, elements))
    assert gpuq("submit", "--array", "0-3", "--parsable", "true").out == "7\n"


def test_parsable_prints_one_id_for_each_line_of_a_file(gpuq: Gpuq, daemon: StubDaemon) -> None:
    array = [job(7 + index, array_id=7, array_index=index) for index in range(3)]
    daemon.on("POST", "/jobs", Answer(201, [job(6), *array, job(10)]))
    (gpuq.work / "jobs.jsonl").write_text('{"command": ["true"]}\n' * 3)
    assert gpuq("submit", "--from-file", "jobs.jsonl", "--parsable").out == "6\n7\n10\n"


def test_value_that_is_not_utf_8_is_left_out_and_told_apart_from_a_secret(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "true", PLACE="d\udcff", HF_TOKEN="t")
    assert done.err.splitlines() == [
        "gpuq: left out, because they are not UTF-8, and a job is stored as text: PLACE",
    ]
    assert not {"PLACE", "HF_TOKEN"} & set(sent(taking)["env"])


def test_json_of_one_job_is_one_document(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "--json", "true", HF_TOKEN="secret", PLACE="d\udcff")
    assert json.loads(done.out)["id"] == 1
    assert "PLACE" in done.err


def test_shell_line_is_run_by_sh(gpuq: Gpuq, taking: StubDaemon) -> None:
    gpuq("submit", "--shell", "a | b")
    assert sent(taking)["command"] == ["/bin/sh", "-c", "a | b"]


def test_likely_secrets_travel_apart_and_nothing_is_said_of_them(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq(
        "submit", "true", HF_TOKEN="t", WANDB_API_KEY="k", PGPASSWORD="p", TOKENIZERS_PARALLELISM="false",
        AWS_SECRET_ACCESS_KEY="s", DBUS_SESSION_BUS_ADDRESS="x", MAX_TOKENS="5",
    )  # fmt: skip
    env = sent(taking)["env"]
    assert {"TOKENIZERS_PARALLELISM", "DBUS_SESSION_BUS_ADDRESS", "MAX_TOKENS", "PATH"} <= set(env)
    assert not {"HF_TOKEN", "WANDB_API_KEY", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"} & set(env)
    expected = {"HF_TOKEN": "t", "WANDB_API_KEY": "k", "PGPASSWORD": "p", "AWS_SECRET_ACCESS_KEY": "s"}
    assert sent(taking)["secrets"].items() >= expected.items()
    assert done.err == ""


@pytest.mark.parametrize(
    ("line", "env", "secrets"),
    [
        ("--env A=1 --env B_TOKEN=2", {"A": "1"}, {"B_TOKEN": "2", "HF_TOKEN": "t"}),
        ("--env HF_TOKEN=new", {}, {"HF_TOKEN": "new"}),
        ("--env-keep HF_TOKEN --env HF_TOKEN=new", {"HF_TOKEN": "new"}, {}),
        ("--env-drop HF_*,MINE", {}, {}),
        ("--env-drop HF_* --env-drop MINE --env MINE=2", {"MINE": "2"}, {}),
        ("--env-none", {}, {}),
        ("--env-none --env-keep MINE --env B_KEY=1", {"MINE": "m"}, {"B_KEY": "1"}),
        ("--env-all", {"HF_TOKEN": "t", "MINE": "m"}, {}),
    ],
)
def test_what_goes_along_and_what_apart(
    gpuq: Gpuq, taking: StubDaemon, line: str, env: dict[str, str], secrets: dict[str, str]
) -> None:
    done = gpuq("submit", *line.split(), "true", HF_TOKEN="t", MINE="m")
    assert (done.code, done.err) == (0, "")
    body = sent(taking)
    ours = {"A", "MINE", "B_TOKEN", "B_KEY", "HF_TOKEN"}
    if line.startswith("--env-none"):
        assert set(body["env"]) - ours <= {"HOME", "USER", "PATH", "LANG", "PWD"}
    elif "MINE" not in line and line != "--env-all":
        env = {**env, "MINE": "m"}
    assert {name: value for name, value in body["env"].items() if name in ours} == env
    assert {name: value for name, value in body.get("secrets", {}).items() if name in ours} == secrets


def test_the_installations_lists_and_nonsense_about_variables(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "true", HF_TOKEN="t", LAB_ID="l", GPUQ_ENV_KEEP="HF_*", GPUQ_ENV_SECRET="LAB_*, X")
    assert done.code == 0, done.err
    assert sent(taking)["env"]["HF_TOKEN"] == "t"
    assert sent(taking)["secrets"]["LAB_ID"] == "l"
    for line in ("--env-none --env-all", "--env-keep HF_TOKEN --env-drop HF_*", "--env HF_TOKEN", "--env-keep UNSET"):
        done = gpuq("submit", *line.split(), "true", HF_TOKEN="t")
        assert done.code == 2
        assert "hint:" in done.err


def test_a_daemon_of_an_earlier_release_gets_what_it_knows(gpuq: Gpuq, daemon: StubDaemon) -> None:
    def take(asked: Any) -> Answer:
        new = [name for name in ("secrets", "limits", "umask", "nice") if name in asked.body]
        if new:
            error = {"code": "usage", "message": f"unknown field {new[0]!r}", "hint": "known: command"}
            return Answer(422, {"error": error})
        return Answer(201, job(1, position=3))

    daemon.on("POST", "/jobs", take)
    done = gpuq("submit", "true", HF_TOKEN="t")
    assert (done.code, done.out) == (0, "job 1 (train) is queued, position 3\n")
    assert "left out, because the daemon is of an earlier release, which keeps no secrets: HF_TOKEN" in done.err


def test_kept_secret_is_stored_and_not_reported(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "--env-keep", "HF_TOKEN", "true", HF_TOKEN="t")
    assert sent(taking)["env"]["HF_TOKEN"] == "t"
    assert done.err == ""


def test_env_all_stores_every_secret(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "--env-all", "true", HF_TOKEN="t", MY_PASSWORD="p")
    assert {"HF_TOKEN", "MY_PASSWORD"} <= set(sent(taking)["env"])
    assert done.err == ""


def test_settings_of_the_submitter_do_not_reach_the_job(gpuq: Gpuq, taking: StubDaemon) -> None:
    gpuq("submit", "true", GPUQ_ORDER="fifo", GPUQ_JOB_ID="7", GPUQ_EXPERIMENT_LABEL="x")
    env = sent(taking)["env"]
    assert [name for name in env if name.startswith("GPUQ_")] == ["GPUQ_EXPERIMENT_LABEL"]


def test_chdir_is_the_working_directory_and_where_the_program_is_looked_for(gpuq: Gpuq, taking: StubDaemon) -> None:
    place = gpuq.work / "exp"
    place.mkdir()
    (place / "go").write_text("#!/bin/sh\n")
    (place / "go").chmod(0o755)
    assert gpuq("submit", "-C", "exp", "./go").code == 0
    assert sent(taking)["cwd"] == str(place)
    assert sent(taking)["env"]["PWD"] == str(place)


def test_lines_of_a_script_are_options_that_the_command_line_overrides(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "train.sh").write_text(
        "#!/bin/bash\n# what it does\n#GPUQ --gpus 2 -n 'my run'   # two\n#GPUQ --env A=1\n\necho hello\n"
    )
    done = gpuq("submit", "-g", "4", "--env", "B=2", "train.sh")
    assert done.code == 0, done.err
    body = sent(taking)
    assert (body["gpus"], body["name"]) == (4, "my run")
    assert body["command"] == [str(gpuq.work / "train.sh")]
    assert (body["env"]["A"], body["env"]["B"]) == ("1", "2")


def test_script_is_named_after_its_file_and_takes_arguments(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "train.sh").write_text("#GPUQ -g 0\necho hello\n")
    assert gpuq("submit", "train.sh", "--lr", "3").code == 0
    assert sent(taking)["name"] == "train.sh"
    assert sent(taking)["command"] == [str(gpuq.work / "train.sh"), "--lr", "3"]


def test_script_that_does_not_say_what_runs_it_is_no_shell_script_for_that(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "train.py").write_text("#GPUQ -g 0\nprint('hello')\n")
    done = gpuq("submit", "train.py")
    assert done.code == 2
    assert "does not say what runs it" in done.err
    assert "#!/usr/bin/env python3" in done.err
    assert taking.seen("POST", "/jobs") == []


def test_script_that_is_only_not_executable_is_run_by_its_first_line(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "plain.py").write_text("#!/usr/bin/env python3\nprint(1)\n")
    assert gpuq("submit", "plain.py").code == 0
    assert sent(taking)["command"] == [str(gpuq.work / "plain.py")]


def test_late_gpuq_line_is_not_read_and_this_is_said(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "train.sh").write_text("#GPUQ -g 0\necho hello\n#GPUQ -g 8\n")
    done = gpuq("submit", "train.sh")
    assert sent(taking)["gpus"] == 0
    assert "line 3" in done.err


def test_bad_gpuq_line_is_named_by_its_number(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "train.sh").write_text("#!/bin/sh\n#GPUQ --gpuz 2\n")
    done = gpuq("submit", "train.sh")
    assert done.code == 2
    assert "train.sh line 2" in done.err
    assert taking.asked == []


def test_file_of_jobs_is_one_request(gpuq: Gpuq, taking: StubDaemon) -> None:
    (gpuq.work / "jobs.jsonl").write_text(
        '{"command": ["true"], "gpus": 0, "env": {"A": "1"}}\n\n{"command": ["true"]}\n'
    )
    done = gpuq("submit", "--from-file", "jobs.jsonl")
    assert (done.code, done.out) == (0, "2 jobs: 1-2\n")
    body = sent(taking)
    first, second = body["jobs"]
    assert (first["gpus"], first["cwd"], first["env"]) == (0, str(gpuq.work), {"A": "1"})
    assert "env" not in second
    assert body["env"]["PATH"] == gpuq.env["PATH"]


def test_jobs_from_stdin_are_a_json_list(gpuq: Gpuq, taking: StubDaemon) -> None:
    done = gpuq("submit", "--from-file", "-", "--json", stdin='{"command": ["true"]}\n')
    assert [found["id"] for found in json.loads(done.out)] == [1]


def test_refused_line_of_a_file_is_named_as_people_count(gpuq: Gpuq, daemon: StubDaemon) -> None:
    refusal = failure("usage", "item 2 of the list: unknown field 'gpuz'", "known: command, gpus", index=1)
    daemon.on("POST", "/jobs", Answer(422, refusal))
    (gpuq.work / "jobs.jsonl").write_text('\n{"command": ["true"]}\n\n{"command": ["true"], "gpuz": 1}\n')
    done = gpuq("submit", "--from-file", "jobs.jsonl")
    assert done.code == 2
    assert done.err == "gpuq: jobs.jsonl line 4: unknown field 'gpuz'\nhint: known: command, gpus\n"


def test_lost_connection_is_repeated_with_the_same_key(gpuq: Gpuq, taking: StubDaemon) -> None:
    taking.drop = 1
    done = gpuq("submit", "--parsable", "true")
    assert (done.code, done.out) == (0, "1\n")
    first, second = taking.seen("POST", "/jobs")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] != ""
    assert first.body == second.body


def test_two_submissions_have_different_keys(gpuq: Gpuq, taking: StubDaemon) -> None:
    gpuq("submit", "true")
    gpuq("submit", "true")
    first, second = taking.seen("POST", "/jobs")
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_only_asking_queues_nothing(gpuq: Gpuq, daemon: StubDaemon) -> None:
    answer = {"ok": True, "estimated_start": "2030-01-01T09:30:00.000Z", "reason": None}
    daemon.on("POST", "/jobs/check", Answer(200, answer))
    done = gpuq("submit", "--test-only", "true")
    assert (done.code, done.out) == (0, "it could be queued; it would start about 2030-01-01 09:30\n")
    assert daemon.seen("POST", "/jobs") == []


def test_only_asking_for_the_impossible_is_a_refusal(gpuq: Gpuq, daemon: StubDaemon) -> None:
    reason = {"code": "constraint", "text": "the job asks for 9 GPUs; this machine has 4"}
    daemon.on("POST", "/jobs/check", Answer(200, {"ok": False, "estimated_start": None, "reason": reason}))
    done = gpuq("submit", "--test-only", "-g", "9", "true")
    assert done.code == 4
    assert "this machine has 4" in done.err
    assert done.out == ""


@pytest.mark.parametrize("bad", [rb'"\ud800"', b'"\xed\xa0\x80"'])
def test_half_a_surrogate_pair_is_told_with_its_line(gpuq: Gpuq, daemon: StubDaemon, bad: bytes) -> None:
    lines = rb'{"command": ["true", "\ud83d\ude00 \u00e9"]}' + b'\n{"command": ["true", ' + bad + b"]}\n"
    (gpuq.work / "jobs.jsonl").write_bytes(lines)
    done = gpuq("submit", "--from-file", "jobs.jsonl")
    assert done.code == 2
    assert done.err.startswith("gpuq: jobs.jsonl line 2: half of a surrogate pair")
    assert daemon.seen("POST", "/jobs") == []


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("the body is larger than 64 MiB", "send the jobs in several requests"),
        ("one request queues at most 5 jobs", "send them in several: `split -l 5` makes parts of a file"),
    ],
)
def test_which_bound_a_file_goes_beyond_is_told_as_the_daemon_tells_it(
    gpuq: Gpuq, daemon: StubDaemon, message: str, hint: str
) -> None:
    daemon.on("POST", "/jobs", Answer(413, failure("too_large", message, hint)))
    (gpuq.work / "jobs.jsonl").write_text('{"command": ["true"]}\n')
    done = gpuq("submit", "--from-file", "jobs.jsonl")
    assert done.code == 4
    assert done.err.splitlines() == [f"gpuq: jobs.jsonl: {message}", f"hint: {hint}"]
