"""The documents are current, whole and lead somewhere; what the code knows stands in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpuq.cli.parse.command_table import COMMANDS
from gpuq.domain.outcome import Outcome
from gpuq.domain.reasons import ReasonCode
from gpuq.domain.states import JobState
from gpuq.environment_variables import JOB_VARIABLES
from gpuq.settings import Settings

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
BUILD = ROOT / "scripts" / "docs_build"
GENERATED = re.compile(r"<!-- generated: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BUILD / "run.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def reference(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text()


def test_the_generated_parts_are_those_of_the_code() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_every_generated_part_is_used_and_filled() -> None:
    used = {name: text for page in DOCS.rglob("*.md") for name, text in GENERATED.findall(page.read_text())}
    known = set(re.findall(r'^    "(\w+)": ', (BUILD / "blocks.py").read_text(), re.MULTILINE))
    assert set(used) == known
    assert all(text.strip() for text in used.values())


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("states", [*JobState, *Outcome, *ReasonCode]),
        ("settings", [f"GPUQ_{name.upper()}" for name in Settings.model_fields]),
        ("commands", [f"gpuq {name}" for name in COMMANDS]),
        ("environment", sorted(JOB_VARIABLES)),
    ],
)
def test_what_the_code_knows_stands_in_the_reference(page: str, names: list[str]) -> None:
    text = reference(page)
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_reason_that_asks_for_something_is_in_troubleshooting() -> None:
    text = (DOCS / "howto" / "troubleshooting.md").read_text()
    assert [code for code in ReasonCode if code is not ReasonCode.STARTING and f"`{code}`" not in text] == []


def test_every_option_of_every_command_stands_in_the_reference() -> None:
    text = reference("commands")
    for name, command in COMMANDS.items():
        section = text.partition(f"\n## gpuq {name}\n")[2].partition("\n## ")[0]
        assert [flag for option in command.options for flag in option.flags if f"{flag}" not in section] == [], name


def test_the_readme_can_be_read_in_two_minutes() -> None:
    assert len([row for row in README.read_text().splitlines() if not row.startswith("<!--")]) <= 150


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_every_page_can_be_reached_from_the_readme_or_the_first_page() -> None:
    text = README.read_text() + (DOCS / "index.md").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.name != "index.md"]
    assert [page for page in pages if page not in text] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Links and anchors that lead nowhere are errors of the build."""
    if find_spec("mkdocs") is None or find_spec("material") is None or find_spec("mkdocstrings") is None:
        if os.environ.get("GPUQ_REQUIRE_SERVICES"):
            pytest.fail("the dependency group `docs` is not installed: pip install --group docs")
        pytest.skip("the dependency group `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = run("--site", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_builds_with_every_link_and_anchor_right(site: Path) -> None:
    assert (site / "index.html").is_file()
    assert (site / "reference" / "http.html").is_file()


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = re.compile(
        r"<(?:script|img|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*stylesheet[^>]*href=\"?https?://"
    )
    assert [page.name for page in site.rglob("*.html") if fetched.search(page.read_text())] == []


def test_the_reference_shows_what_the_python_package_offers(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text()
    for name in ("submit", "wait", "cancel", "history"):
        assert f'id="gpuq.Client.{name}"' in text, name


def test_every_command_has_a_manual_page(tmp_path: Path) -> None:
    assert run("--man", str(tmp_path)).returncode == 0
    assert {page.name for page in tmp_path.iterdir()} == {
        "gpuq.1",
        *(f"gpuq-{name.replace(' ', '-')}.1" for name in COMMANDS),
    }
    text = (tmp_path / "gpuq-submit.1").read_text()
    assert all(flag.replace("-", "\\-") in text for option in COMMANDS["submit"].options for flag in option.flags)


def test_manual_pages_are_sound(tmp_path: Path) -> None:
    checker = shutil.which("mandoc") or shutil.which("groff")
    if checker is None:
        pytest.skip("neither mandoc nor groff is installed")
    assert run("--man", str(tmp_path)).returncode == 0
    pages = sorted(str(page) for page in tmp_path.iterdir())
    words = ["-Tlint", "-W", "warning"] if checker.endswith("mandoc") else ["-man", "-ww", "-z", "-Tutf8"]
    done = subprocess.run([checker, *words, *pages], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
