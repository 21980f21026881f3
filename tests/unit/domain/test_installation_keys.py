"""Keys of the installation: written by one release, read by the next."""

from __future__ import annotations

from gpuq.domain.installation_keys import InstallationKey
from gpuq.stores.sql.schema import folders


def test_keys_are_those_that_earlier_releases_wrote() -> None:
    assert InstallationKey.PAUSED.of() == "paused"
    assert InstallationKey.DRAINED.of("node1", "GPU-7") == "drained:node1:GPU-7"
    assert InstallationKey.GROUP_LIMIT.of("night") == "group-limit:night"
    assert InstallationKey.LAUNCH_TROUBLE.of("node1") == "obstacle:node1"
    # Written out in the schema's views and statements.
    assert InstallationKey.RUNS.of("node1") == f"{folders.KEY}:node1"
    assert InstallationKey.RANKING.of() == "ranking"
    assert InstallationKey.EPOCH.of() == "epoch"
    assert InstallationKey.AGENT.of("node1") == "agent:node1"


def test_keys_of_one_node_are_not_those_of_another_whose_name_begins_alike() -> None:
    assert not InstallationKey.DRAINED.of("node10", "GPU-7").startswith(InstallationKey.DRAINED.prefix("node1"))
