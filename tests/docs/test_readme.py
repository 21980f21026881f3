"""What the code knows stands in the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tables_are_those_of_the_code() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "readme_tables.py"), "--check"], check=False)
    assert done.returncode == 0, "run scripts/readme"


@pytest.mark.parametrize("name", ["states", "outcomes", "reasons", "commands", "settings", "errors"])
def test_every_table_is_there_and_filled(name: str) -> None:
    found = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert found is not None
    assert found[1].count("\n") > 5


def test_every_variable_that_a_job_sees_is_named() -> None:
    from gpuq.settings import JOB_VARIABLES

    for name in JOB_VARIABLES - {"GPUQ_TOKEN_OF_ATTEMPT"}:
        assert name in README


def test_links_into_the_project_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_placeholder_was_left() -> None:
    assert not re.search(r"@[A-Z_]+@|<!-- (tour|sql|numbers) -->", README)
