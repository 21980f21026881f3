from __future__ import annotations

import pytest
from stub_daemon import Answer, Gpuq, StubDaemon, failure

LINES = {
    "unknown command": ("statsu", 2, "did you mean"),
    "unknown option": ("submit --prioritty high true", 2, "--prioritty"),
    "option of another command": ("show 7 --force", 2, "--force"),
    "option without its value": ("submit -g", 2, "-g"),
    "unknown priority": ("submit -p urgent true", 2, "'urgent'"),
    "bad duration": ("submit -t 2parsec true", 2, "-t/--time: bad duration '2parsec'"),
    "no time to run": ("submit -t 0 true", 2, "-t/--time"),
    "bad number": ("submit -g two true", 2, "-g/--gpus: 'two'"),
    "negative number": ("submit -g -1 true", 2, "'-1' is not a whole number from 0 on"),
    "number beyond all": (
        "submit --retries 99999999999999999999 true",
        2,
        "--retries: 99999999999999999999 is too large",
    ),
    "time beyond all": ("submit -t 99999999d true", 2, "-t/--time: at most 3650d, not 99999999d"),
    "limit beyond all": ("group limit nlp 99999999999999999999", 2, "at most 1000000"),
    "bad memory": ("submit --gpu-mem 18Q true", 2, "--gpu-mem: bad memory size '18Q'"),
    "bad indices": ("submit --gpu-ids 0,x true", 2, "'x'"),
    "bad begin": ("submit --begin blursday true", 2, "'blursday'"),
    "bad env": ("submit --env FOO true", 2, "'FOO'"),
    "kept variable that is not set": ("submit --env-keep NOPE true", 2, "NOPE"),
    "no command": ("submit -g 1", 2, "no command"),
    "program that is not there": ("submit no-such-program-here", 2, "'no-such-program-here'"),
    "path that is not there": ("submit ./nothing", 2, "./nothing"),
    "directory that is not there": ("submit -C /no/such/place true", 2, "/no/such/place"),
    "shell and a command": ("submit --shell ls true", 2, "--shell"),
    "json and parsable": ("submit --json --parsable true", 2, "--parsable"),
    "file that is not there": ("submit --from-file nothing.jsonl", 2, "nothing.jsonl"),
    "file and an option": ("submit --from-file x.jsonl -g 2", 2, "--gpus"),
    "array in the foreground": ("run --array 0-3 true", 2, "--array"),
    "bad id": ("show seven", 2, "'seven'"),
    "no id": ("show", 2, "ID"),
    "two ids": ("why 7 9", 2, "'9'"),
    "range for one": ("show 7-9000000", 2, "7-9000000"),
    "backward range": ("status 9-7", 2, "9-7"),
    "unknown state": ("status -s asleep", 2, "'asleep'"),
    "me and another": ("status --me -u bob", 2, "--me"),
    "watched json": ("status -w --json", 2, "--json"),
    "limit of none": ("status --limit 0", 2, "--limit"),
    "all without a filter": ("cancel all", 2, "--yes"),
    "nobody": ("cancel", 2, "which jobs"),
    "force with grace": ("cancel 7 --force --grace 5s", 2, "--force"),
    "nothing to change": ("update 7", 2, "what shall change"),
    "no time at all": ("update 7 -t +", 2, "-t/--time: bad duration"),
    "less of what is no time": ("update 7 -t -soon", 2, "write 4h, +2h (more) or -30m (less)"),
    "more time for a new job": ("submit -t +2h true", 2, "bad duration '+2h'"),
    "unknown report": ("report horoscope", 2, "'horoscope'"),
    "unknown grouping": ("report usage --by mood", 2, "'mood'"),
    "index that is none": ("gpus drain first", 2, "'first'"),
    "index that is none among others": ("gpus undrain 0 1-x", 2, "'1-x'"),
    "range of GPUs that goes down": ("gpus drain 3-1", 2, "'3-1' is no range of GPUs"),
    "range of GPUs without end": ("gpus drain 0-9999999", 2, "'0-9999999' is no range of GPUs"),
    "no index at all": ("gpus drain", 2, "INDEX"),
    "every dead letter": ("dlq purge all", 2, "--yes"),
    "no dead letter named": ("dlq purge", 2, "which"),
    "token that is none": ("token revoke abc", 2, "'abc'"),
    "restore of what is no backup": ("db restore /etc/passwd", 4, "/etc/passwd is not a backup of gpuq"),
    "restore of nothing": ("db restore /no/such/file --yes", 2, "/no/such/file"),
}


def assert_one_clear_line(err: str) -> None:
    lines = err.splitlines()
    assert lines[0].startswith("gpuq: "), err
    assert len(lines) <= 2, err
    assert all(line.startswith("hint: ") for line in lines[1:]), err
    assert "Traceback" not in err


@pytest.mark.parametrize(("line", "code", "said"), LINES.values(), ids=LINES.keys())
def test_bad_line_gets_one_clear_line(gpuq: Gpuq, daemon: StubDaemon, line: str, code: int, said: str) -> None:
    daemon.on("GET", "/jobs", Answer(200, []))
    done = gpuq(*line.split())
    assert_one_clear_line(done.err)
    assert done.code == code
    assert said.lower() in done.err.lower()
    assert done.out == ""
    assert not [asked for asked in daemon.asked if asked.method != "GET"]


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("usage", 422, 2), ("not_found", 404, 3), ("refused", 409, 4), ("forbidden", 403, 4),
        ("unauthenticated", 401, 4), ("constraint", 422, 4), ("wrong_state", 409, 4), ("schema_mismatch", 503, 4),
        ("database_unavailable", 503, 5), ("hot_store_cold", 503, 5), ("lease_lost", 409, 1), ("internal", 500, 1),
        ("code_of_a_later_release", 409, 4), ("too_large", 413, 4),
    ],
)  # fmt: skip
def test_error_of_the_daemon_keeps_message_hint_and_exit_code(
    gpuq: Gpuq, daemon: StubDaemon, code: str, status: int, exit_code: int
) -> None:
    daemon.on("GET", "/jobs/7", Answer(status, failure(code, "so it is", "do that")))
    done = gpuq("show", "7")
    assert (done.code, done.out, done.err) == (exit_code, "", "gpuq: so it is\nhint: do that\n")


@pytest.mark.parametrize(
    ("line", "complaint", "told"),
    [
        ("submit --retries 9999 true", "max_retries: must be at most 1000", "--retries: must be at most 1000"),
        ("submit --kill-grace 9d true", "kill_grace_s: must be at most 86400", "--kill-grace: must be at most 86400 s"),
        ("submit -g 9999 true", "gpus: must be at most 1024", "-g/--gpus: must be at most 1024"),
        ("submit true", "gpus: must be at most 1024", "gpus: must be at most 1024"),
        ("submit -g 1 true", "no such thing", "no such thing"),
    ],
)
def test_complaint_about_a_field_names_the_option_that_gave_it(
    gpuq: Gpuq, daemon: StubDaemon, line: str, complaint: str, told: str
) -> None:
    daemon.on("POST", "/jobs", Answer(422, failure("usage", complaint, "do that")))
    done = gpuq(*line.split())
    assert (done.code, done.out, done.err) == (2, "", f"gpuq: {told}\nhint: do that\n")


def test_answer_that_is_not_json_is_told_as_such(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", Answer(200, b"<html>"))
    done = gpuq("status")
    assert done.code == 1
    assert_one_clear_line(done.err)


def test_job_that_does_not_exist_is_exit_3(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/jobs", Answer(200, []))
    done = gpuq("status", "12")
    assert (done.code, done.out) == (3, "")
    assert "there is no job 12" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{not json\n", "jobs.jsonl line 1"),
        ('{"command": ["true"]}\n["true"]\n', "jobs.jsonl line 2: not a JSON object"),
        ('{"command": ["true"]}\n\n{"command": ["no-such-program"]}\n', "jobs.jsonl line 3"),
        ('{"command": ["a\\u0000b"]}\n', "jobs.jsonl line 1: command: an argument contains a NUL byte"),
        ('{"command": ["a\\ud800b"]}\n', "jobs.jsonl line 1: half of a surrogate pair"),
        ('{"command": ["a"], "env": {"PATH": "/x\\u0000y"}}\n', "jobs.jsonl line 1: there is no program 'a'"),
        ('{"command": ["no-such-program"], "env": {"PATH": 5}}\n', "jobs.jsonl line 1"),
        ('{"command": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "jobs.jsonl line 1: not JSON: nested too deep"),
        ("\n  \n", "jobs.jsonl has no jobs"),
        ("", "jobs.jsonl has no jobs"),
    ],
)
def test_malformed_line_of_a_file_is_named(gpuq: Gpuq, daemon: StubDaemon, text: str, said: str) -> None:
    (gpuq.work / "jobs.jsonl").write_text(text)
    done = gpuq("submit", "--from-file", "jobs.jsonl")
    assert done.code == 2
    assert said in done.err
    assert done.out == ""
    assert_one_clear_line(done.err)
    assert daemon.asked == []


NO_TEXT = "g\udcff"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["status", "--group", NO_TEXT], "-g/--group"),
        (["status", "--user", NO_TEXT], "--user"),
        (["cancel", "6", "--reason", NO_TEXT], "--reason"),
        (["submit", "--env", f"X={NO_TEXT}", "true"], "--env"),
        (["submit", "--key", NO_TEXT, "true"], "--key"),
        (["submit", "--group", NO_TEXT, "true"], "--group"),
        (["submit", "--shell", NO_TEXT], "--shell"),
        (["submit", "-C", NO_TEXT, "true"], "--chdir"),
        (["submit", "true", NO_TEXT], "g"),
        (["group", "limit", NO_TEXT, "2"], "the group's name"),
        (["sql", NO_TEXT], "the question"),
    ],
)
def test_value_that_is_not_utf_8_is_named_with_its_option(
    gpuq: Gpuq, daemon: StubDaemon, line: list[str], named: str
) -> None:
    done = gpuq(*line)
    assert_one_clear_line(done.err)
    assert (done.code, done.out) == (2, "")
    assert named in done.err
    assert "is not UTF-8, and a job is stored as text" in done.err
    assert daemon.asked == []


@pytest.mark.parametrize("line", [["submit", "true"], ["submit", "--from-file", "../jobs.jsonl"]])
def test_directory_whose_name_is_not_utf_8_is_named(gpuq: Gpuq, daemon: StubDaemon, line: list[str]) -> None:
    (gpuq.work / "jobs.jsonl").write_text('{"command": ["true"]}\n')
    gpuq.work = gpuq.work / "d\udcff"
    gpuq.work.mkdir()
    done = gpuq(*line)
    assert_one_clear_line(done.err)
    assert (done.code, done.out) == (2, "")
    assert "the directory" in done.err
    assert "is not UTF-8" in done.err
    assert daemon.asked == []


def test_kept_variable_that_is_not_utf_8_is_an_error(gpuq: Gpuq, daemon: StubDaemon) -> None:
    done = gpuq("submit", "--env-keep", "PLACE", "true", PLACE="d\udcff")
    assert done.code == 2
    assert "--env-keep: the value of PLACE is not UTF-8" in done.err
    assert_one_clear_line(done.err)


def test_nested_line_that_can_be_read_but_not_written_is_told(gpuq: Gpuq, daemon: StubDaemon) -> None:
    # Where the interpreter gives up depends on how deep the stack is already.
    for depth in (960, 970, 980, 990):
        (gpuq.work / "jobs.jsonl").write_text('{"command": ["true"], "x": ' + "[" * depth + "]" * depth + "}\n")
        done = gpuq("submit", "--from-file", "jobs.jsonl")
        assert "internal error" not in done.err
        assert_one_clear_line(done.err)


def test_name_of_a_group_that_is_none_is_told_in_words_for_people(gpuq: Gpuq, daemon: StubDaemon) -> None:
    done = gpuq("group", "limit", "", "2")
    assert done.code == 2
    assert "1 to 200 characters" in done.err
    assert daemon.asked == []


def test_home_that_cannot_be_is_the_whole_story(gpuq: Gpuq) -> None:
    done = gpuq("status", GPUQ_HOME="/dev/null/x")
    assert done.err.startswith("gpuq: cannot make /dev/null/x")
    assert_one_clear_line(done.err)


def test_broken_config_file_is_named(gpuq: Gpuq, daemon: StubDaemon) -> None:
    (gpuq.home / "config.toml").write_text("lease_ttl = = 3\n")
    done = gpuq("status")
    assert done.code == 2
    assert "config.toml is not valid TOML" in done.err
    assert_one_clear_line(done.err)


def test_unknown_setting_in_the_config_file_names_the_nearest(gpuq: Gpuq, daemon: StubDaemon) -> None:
    (gpuq.home / "config.toml").write_text("lease_tll = 3\n")
    done = gpuq("status")
    assert done.code == 2
    assert "did you mean lease_ttl?" in done.err
    assert_one_clear_line(done.err)


def test_unknown_setting_in_the_environment_names_the_nearest(gpuq: Gpuq, daemon: StubDaemon) -> None:
    done = gpuq("status", GPUQ_LEASE_TLL="3")
    assert done.code == 2
    assert "did you mean lease_ttl?" in done.err


def test_variable_that_only_shares_the_prefix_is_nobodys_business(gpuq: Gpuq, daemon: StubDaemon) -> None:
    daemon.on("GET", "/queue", Answer(200, {"running": 0, "queued": 0, "waiting": 0, "total": 0, "jobs": []}))
    assert gpuq("status", GPUQ_EXPERIMENT_LABEL="x").code == 0


def test_config_file_that_is_named_and_missing_is_an_error(gpuq: Gpuq, daemon: StubDaemon) -> None:
    done = gpuq("status", GPUQ_CONFIG="/no/such/config.toml")
    assert done.code == 2
    assert "/no/such/config.toml" in done.err


@pytest.mark.parametrize("server", ["unix:///no/such/socket", "http://127.0.0.1:9"])
def test_named_server_that_does_not_answer_is_exit_5_and_nothing_stands_in_for_it(gpuq: Gpuq, server: str) -> None:
    done = gpuq("submit", "true", GPUQ_SERVER=server)
    assert (done.code, done.out) == (5, "")
    assert_one_clear_line(done.err)
    assert not (gpuq.home / "gpuq.db").exists()


def test_address_that_is_none_is_a_usage_error(gpuq: Gpuq) -> None:
    done = gpuq("status", GPUQ_SERVER="ftp://box")
    assert done.code == 2
    assert_one_clear_line(done.err)


def test_traceback_is_shown_only_on_request(gpuq: Gpuq, daemon: StubDaemon) -> None:
    assert "Traceback" not in gpuq("show", "seven").err
    assert "Traceback" in gpuq("show", "seven", GPUQ_DEBUG="1").err


def test_home_too_long_for_a_socket_says_so(gpuq: Gpuq) -> None:
    done = gpuq("run", "true", GPUQ_HOME="/tmp/" + "x" * 120)
    assert done.code == 5
    assert "shorter GPUQ_HOME" in done.err
