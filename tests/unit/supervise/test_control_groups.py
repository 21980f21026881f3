"""How a supervisor gets into its control group and out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuq.supervise.cgroup import Cgroup
from gpuq.supervise.cgroup_folders import FREEZER, V2


@pytest.mark.parametrize(("kind", "moved_by"), [(V2, "cgroup.procs"), (FREEZER, "tasks")])
def test_only_version_2_moves_a_supervisor_in_the_way_that_waits_for_the_kernel(
    tmp_path: Path, kind: str, moved_by: str
) -> None:
    group = Cgroup(kind, str(tmp_path), "1-2")
    files = {tmp_path / place / name for place in (".", "1-2") for name in ("cgroup.procs", "tasks")}
    (tmp_path / "1-2").mkdir()
    for file in files:
        file.touch()
    group.enter()
    written = {file for file in files if file.read_text() == "0"}
    assert written == {tmp_path / "1-2" / moved_by}
    assert not group.left
    group.leave()
    assert {file for file in files if file.read_text() == "0"} - written == {tmp_path / moved_by}
    assert group.left
