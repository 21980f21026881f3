"""A job sees only its own GPUs: it cannot open the device nodes of the others, whatever it does."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accounts import Accounts

from gpuq.supervise import isolation

NODES = ("gpu0", "gpu1", "gpu2")


@pytest.fixture
def make_isolating_box(make_root_box: Callable[..., Any]) -> Callable[..., Any]:
    """A daemon with three simulated GPUs, each with a device node that everybody may open (it is /dev/null's)."""
    if os.geteuid() != 0:
        pytest.skip("only root can make device nodes")
    why_not = isolation.works()
    if why_not is not None:
        pytest.skip(f"mount namespaces do not work here: {why_not}")

    def make(**settings: str) -> Any:
        box = make_root_box(GPUQ_GPUS="sim:3x24G", **settings)
        folder = box.home / "dev"
        folder.mkdir(mode=0o755)
        for name in NODES:
            try:
                os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
                (folder / name).chmod(0o666)
                (folder / name).read_bytes()
            except OSError as error:
                pytest.skip(f"no device node can be made and opened in {folder}: {error.strerror}")
        tell_nodes(box, *(folder / name for name in NODES))
        box.up()
        return box

    return make


def tell_nodes(box: Any, *paths: Path) -> None:
    state = {str(index): {"device_nodes": [str(path)]} for index, path in enumerate(paths)}
    new = box.home / "sim-gpus.new"
    new.write_text(json.dumps(state))
    new.rename(box.home / "sim-gpus.json")


def tries(box: Any) -> str:
    """A script that says of each node whether it can be opened."""
    lines = [
        f"if ( : <{box.home}/dev/{name} ); then echo {name} opens; else echo {name} does not; fi" for name in NODES
    ]
    return "CUDA_VISIBLE_DEVICES=0,1,2; exec 2>/dev/null\n" + "\n".join(lines)


def opened(box: Any, job: int) -> set[int]:
    """Indices of the GPUs whose nodes the job could open."""
    box.until_state(job, "completed")
    said = box.gpuq("logs", str(job)).stdout.splitlines()
    lines = [line for line in said if line.endswith((" opens", " does not"))]
    assert len(lines) == len(NODES), said
    return {int(line.split()[0].removeprefix("gpu")) for line in lines if line.endswith("opens")}


def mounts_in(box: Any) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(box.home) in line]


# What a job may try to get at the others: each line must fail. `$N` is the node.
ATTACKS = """
umount $N
umount -l $N
unshare -Urm umount $N
unshare -Urm mount -o remount,bind,dev $N
unshare -Urm sh -c "mount --bind $(dirname $N) /mnt && : </mnt/$(basename $N)"
unshare -Urm sh -c "mount --rbind $(dirname $N) /mnt && : </mnt/$(basename $N)"
unshare -Urm sh -c "umount -R / ; : <$N"
unshare -Urm sh -c "mount -t tmpfs none /mnt && mknod /mnt/n c 1 3 && : </mnt/n"
mknod /tmp/gpuq-attack-$$ c 1 3
nsenter -m -t 1 sh -c ": <$N"
sh -c ": </proc/1/root$N"
sh -c ": <$N"
"""


def test_a_job_opens_the_nodes_of_its_own_gpus_only(make_isolating_box: Callable[..., Any], accounts: Accounts) -> None:
    box = make_isolating_box()
    one = box.submit_as(accounts.bob, tries(box), gpus=1, gpu_ids=[1])
    two = box.submit_as(accounts.bob, tries(box), gpus=2, gpu_ids=[0, 2])
    none = box.submit_as(accounts.bob, tries(box), gpus=0)
    shared = box.submit_as(accounts.alice, tries(box), gpus=1, gpu_ids=[2], gpu_mem_mb=1000)
    # Root's own job is not run as another user, and is isolated too.
    spec = {"command": ["/bin/sh", "-c", tries(box)], "cwd": "/", "gpu_ids": [0]}
    of_root = box.call(None, "POST", "/jobs", spec).json["id"]
    assert [opened(box, job) for job in (one, two, none, shared, of_root)] == [{1}, {0, 2}, set(), {2}, {0}]
    attacks = [line.replace("$N", str(box.home / "dev/gpu2")) for line in ATTACKS.strip().splitlines()]
    script = "\n".join(
        f"if ( {line} ) >/dev/null 2>&1; then echo broken: {number}; fi" for number, line in enumerate(attacks)
    )
    attacker = box.submit_as(accounts.bob, f"{script}\n{tries(box)}", gpus=1, gpu_ids=[1])
    assert opened(box, attacker) == {1}
    assert "broken" not in box.gpuq("logs", str(attacker)).stdout, attacks
    assert mounts_in(box) == []
    assert "a job can open only its own GPUs' device nodes" in box.gpuq("doctor", code=None).stdout

    # A job that cannot be isolated is not run, and not charged for it.
    plain = box.home / "dev/plain"
    plain.touch()
    tell_nodes(box, box.home / "dev/gpu0", plain)
    waits = box.submit_as(accounts.bob, tries(box), gpus=1, gpu_ids=[0])
    why = box.until(
        lambda: [reason for reason in [box.show(waits)["reason"]] if reason and reason["code"] == "LaunchTrouble"],
        "the trouble is told",
    )
    assert "cannot be hidden" in why[0]["text"]
    assert box.show(waits)["retries_used"] == 0
    tell_nodes(box, *(box.home / "dev" / name for name in NODES))
    assert opened(box, waits) == {0}


def test_isolation_can_be_switched_off(make_isolating_box: Callable[..., Any], accounts: Accounts) -> None:
    box = make_isolating_box(GPUQ_ISOLATE_GPUS="off")
    assert opened(box, box.submit_as(accounts.bob, tries(box), gpus=1)) == {0, 1, 2}
    assert "GPUQ_ISOLATE_GPUS is off" in box.gpuq("doctor", code=None).stdout
