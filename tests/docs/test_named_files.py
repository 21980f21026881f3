"""Files and folders that the documents and the templates for changes name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
# A file or folder of the project in backticks; with capitals it is a pattern, not a name. A script may have arguments.
PATH = re.compile(
    r"`((?:gpuq|tests|scripts|migrations|docs)/[a-z0-9_./-]+|(?:engine|scheduler|supervise|stores)/[a-z_/]+)"
    r"(?: [^`]*)?`"
)

# The pages name files of the layout by stages; in a tree from before it there is nothing to compare with.
by_stages = pytest.mark.skipif(not (ROOT / "gpuq" / "engine" / "intake").is_dir(), reason="the engine is still flat")


@by_stages
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = PATH.findall(page.read_text())
    places = [(ROOT / name, ROOT / "gpuq" / name, ROOT / "gpuq" / f"{name}.py") for name in named]
    assert [str(found[0].relative_to(ROOT)) for found in places if not any(place.exists() for place in found)] == []


def test_the_checklists_name_files() -> None:
    assert len(PATH.findall((DOCS / "CONTRIBUTING.md").read_text())) > 40
