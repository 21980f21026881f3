"""Every command that a page shows is run, and prints what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from console import Command, File, Left, matches, normal, one_reader, starts_a_daemon, steps

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Why a block with commands is not run by these tests, and what tells all the same that it is right.
WHY_NOT = {
    "it installs everything into the tree": "whoever runs the tests has done it",
    "it runs the tests": "whoever runs the tests has done it",
    "the first-week script runs it": "scripts/firstweek, with a copy of the tree and an empty home",
    "it would replace the package that is tested": "tests/release installs; tests/migration upgrades",
    "it installs into the machine": "tests/release installs, into a folder of its own",
    "it fills the terminal": "tests/cli/test_monitor.py, without one",
    "needs a daemon on another machine": "tests/cli and tests/server ask one over TCP",
    "writes below /etc": "tests/unit/test_contrib.py checks the files that are written",
    "needs systemd": "nothing: to be tried on a machine that has it",
    "needs a PostgreSQL server": "tests/security makes the login with `gpuq db reporter`",
    "needs a database of the past": "tests/crash makes one, and adopts it",
}
# Who follows a page mostly waits for jobs; more at once than these keep each other from the processor.
AT_ONCE = 4


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_run(page: Path) -> bool:
    return any(isinstance(step, Command) for step in steps(page.read_text()))


def follow(page: Path) -> None:
    """Does what the page says, in a home and with a daemon of its own. Raises pytest's failure where it differs."""
    text = page.read_text()
    with one_reader() as reader:
        if not starts_a_daemon(text):
            reader.run("gpuq up -d")
        for step in steps(text):
            if isinstance(step, File):
                (reader.home / step.name).write_text(step.text)
            elif isinstance(step, Command):
                reader.follow(step)


@pytest.fixture(scope="module")
def followed(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[None]]]:
    """Every page that a selected test asks for, several of them being followed at the same time."""
    ours = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    pages = [item.callspec.params["page"] for item in ours if "page" in item.callspec.params]
    with ThreadPoolExecutor(AT_ONCE) as people:
        # The longest first, or it alone is left over at the end.
        yield {page: people.submit(follow, page) for page in sorted(pages, key=_commands, reverse=True)}


def _commands(page: Path) -> int:
    return sum(isinstance(step, Command) for step in steps(page.read_text()))


@pytest.mark.redis
@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)], ids=name)
def test_what_a_page_shows_is_what_happens(page: Path, followed: dict[Path, Future[None]]) -> None:
    followed[page].result()


def test_a_block_that_is_not_run_says_why_and_the_reason_is_a_good_one() -> None:
    left = [(name(page), step.reason) for page in PAGES for step in steps(page.read_text()) if isinstance(step, Left)]
    assert [block for block in left if block[1] not in WHY_NOT] == []
    assert {reason for _, reason in left} == set(WHY_NOT), "a reason that no block has"


def test_a_page_tells_commands_outputs_and_files_apart() -> None:
    page = (
        "<!-- file: a.py -->\n```python\nprint(1)\n```\ntext\n"
        "```console\n$ one\nits output\n$ two \\\n> three\n```\n"
        "<!-- not run: needs root -->\n```console\n$ four\n```\n```json\n{}\n```\n```sh\nfive\n```\n"
    )
    assert list(steps(page)) == [
        File("a.py", "print(1)\n"),
        Command("one", ["its output"]),
        Command("two \\\nthree", []),
        Left("needs root"),
        Left(""),
    ]


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (["a", "…"], ["a", "b", "c"], True),
        (["…", "c"], ["a", "b", "c"], True),
        (["…", "d"], ["a", "b", "c"], False),
    ],
)
def test_an_ellipsis_stands_for_any_lines_and_nothing_else_does(
    expected: list[str], found: list[str], same: bool
) -> None:
    assert matches(expected, found) is same


def test_times_and_process_ids_may_differ_and_words_and_counts_may_not() -> None:
    shown = normal("job 3 (digits) is queued, position 1, starts about 07:35; pid 26104, 12s, 2026-11-22 07:35:14")
    assert shown == normal(
        "job 3 (digits) is queued,  position 1, starts about 23:59; pid 7, 1h05m, 2030-01-02 03:04:05"
    )
    assert shown != normal(
        "job 3 (digits) is queued, position 2, starts about 07:35; pid 26104, 12s, 2026-11-22 07:35:14"
    )
    assert shown != normal(
        "job 4 (digits) is queued, position 1, starts about 07:35; pid 26104, 12s, 2026-11-22 07:35:14"
    )
