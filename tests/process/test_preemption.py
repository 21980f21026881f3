"""The engine preempts a job of a real supervisor, and its reaper looks on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpuq.domain.caller import Caller
from gpuq.domain.outcome import Outcome
from gpuq.engine.maintenance.reap import reap
from gpuq.ports.launcher import LaunchOrder

# Rings for each signal, and leaves when the test lets it.
SAVING = """
import os, signal, sys
bell = os.open(sys.argv[1], os.O_WRONLY)
for name in ("TERM", "USR1"):
    signal.signal(getattr(signal, "SIG" + name), lambda number, frame: os.write(bell, b"%d\\n" % number))
signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(0))
os.write(bell, b"ready\\n")
while True:
    signal.pause()
"""
GRACE_S = 20.0
PATIENCE_S = 20.0


def test_a_preempted_job_with_a_signal_has_its_whole_notice_and_grace_while_the_reaper_runs(
    world: Any, make_world: Callable[..., Any]
) -> None:
    engine = make_world("sim:1")
    engine.ctx = replace(engine.ctx, launcher=world.launcher)
    # The supervisor tells when the job began.
    engine.clock.time = time.time()
    bell = world.bell()
    command = (sys.executable, "-I", "-S", "-c", SAVING, str(bell.path))
    myself = Caller("myself", uid=os.geteuid(), gid=os.getegid())
    job_id = engine.submit(*command, by=myself, preemptible=True, signal="USR1@1", kill_grace_s=GRACE_S)
    agent = engine.agent()
    agent.run_once()
    run_dir = engine.ctx.run_dir(job_id, 1)
    # So that nothing of it is left when the test fails.
    world.adopt(LaunchOrder(job_id, 1, engine.job(job_id).token, run_dir, f"{run_dir}/output.log", {}))
    assert bell.wait() == "ready"
    while engine.state(job_id) == "starting":
        agent.turn(PATIENCE_S, write_after_s=0.0)
    engine.clock.forward(3600)
    engine.submit("true", by=myself)
    agent.wake()
    agent.run_once()
    assert bell.wait() == str(int(signal.SIGUSR1))
    # On the engine's clock the grace alone would be over for longer than a supervisor may take.
    engine.clock.forward(GRACE_S + 5.5)
    reap(engine.ctx, suspect_after_s=0.0)
    assert bell.wait() == str(int(signal.SIGTERM))
    reap(engine.ctx, suspect_after_s=0.0)
    os.kill(world.launcher.launched(run_dir, engine.job(job_id).token).pid, signal.SIGUSR2)
    while engine.state(job_id) == "stopping":
        agent.turn(PATIENCE_S)
    with engine.ctx.records.read() as tx:
        [ended] = tx.attempts(job_id)
    assert (ended.outcome, ended.exit_code, ended.signal) == (Outcome.PREEMPTED, 0, None)
