"""What is broken, and how. Each fault hits something of this run only, and notes what the checker must know of it."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import processes
import redis
from evidence import Kill
from file_faults import FileFaults
from installation import GPUQ, LEASE_TTL_S, Installation
from processes import Process, gone
from supervisor_faults import SupervisorFaults

Fault = Callable[[], bool]
DRAWS = 8
# What is broken for a while, and is let alone until it is whole again.
RESTART, SUSPENDED, REDIS, SQL = "restart", "suspended", "redis", "sql"


class Faults:
    """`counts`: injected, by kind. A fault that found nothing to break returns False and is not counted."""

    def __init__(self, installation: Installation, seed: str, *, database: object = None) -> None:
        self.counts: Counter[str] = Counter()
        self.kills: list[Kill] = []
        self.complaints: list[tuple[str, str]] = []
        self.box = installation
        self.random = Random(f"{seed} faults")
        self._database = database
        self._timers: list[threading.Timer] = []
        self.busy: set[str] = set()
        self._over = False
        self._kinds = self._weighted()

    def _weighted(self) -> dict[str, tuple[int, Fault]]:
        kinds: dict[str, tuple[int, Fault]] = {
            "SIGKILL daemon, then up": (7, lambda: self._kill_daemon(signal.SIGKILL)),
            "SIGTERM daemon, then up": (4, lambda: self._kill_daemon(signal.SIGTERM)),
            "SIGKILL daemon while it starts": (4, self._kill_while_starting),
            "SIGKILL daemon, Redis, fork server, supervisors at once": (2, self._kill_everything),
            "second `gpuq up` on the same home": (2, self._second_daemon),
            "daemon suspended longer than its leases": (3, self._suspend_daemon),
            "SIGKILL supervisor": (12, self._kill_supervisor),
            "SIGKILL job": (12, self._kill_job),
            "SIGKILL fork server": (7, self._kill_fork_server),
            "SIGKILL redis-server": (8, self._kill_redis),
            "redis-server suspended longer than leases": (3, self._suspend_redis),
            "FLUSHALL": (8, lambda: self._tell_redis(lambda link: link.flushall())),
            "Redis out of memory": (5, self._redis_full),
            "Redis read-only": (4, self._redis_read_only),
            "hint removed from Redis": (6, self._remove_hint),
            "lease removed from Redis": (6, self._remove_lease),
            "wrong epoch in Redis": (
                5,
                lambda: self._tell_redis(lambda link: link.set("gpuq:epoch", "somebody else's")),
            ),
            "key of another type in Redis": (4, self._foreign_key),
            "Redis: scripts flushed, clients cut": (4, self._cut_redis),
        }
        if self._database is None:
            kinds["SQLite locked by another writer"] = (4, self._lock_sqlite)
        else:
            kinds["PostgreSQL connections cut"] = (8, self._cut_postgres)
            kinds["PostgreSQL restarted"] = (3, self._restart_postgres)
        return kinds | FileFaults(self).kinds() | SupervisorFaults(self).kinds()

    # -- running them -------------------------------------------------------------------------------------------

    def inject(self) -> None:
        """One fault of a kind drawn by weight; another is drawn when there is nothing to break in that way."""
        self._require_a_daemon()
        names = list(self._kinds)
        for kind in self.random.choices(names, weights=[self._kinds[name][0] for name in names], k=DRAWS):
            begun = time.time()
            try:
                done = self._kinds[kind][1]()
            except (redis.RedisError, ProcessLookupError, FileNotFoundError):
                # What was to be broken is broken already.
                done = False
            if done:
                self.counts[kind] += 1
                self.box.note(f"{begun:.3f} {time.time() - begun:.2f} s: {kind}")
                return

    def _require_a_daemon(self) -> None:
        """Nobody but us ends it: without one most faults would find nothing to break."""
        if RESTART not in self.busy and self.box.daemon() is None:
            self.complaints.append(("P5", "no daemon was running although nobody had ended it"))
            self.ensure_up()

    def settle(self) -> None:
        """Waits for the end of what lasts: everything is whole again, and a daemon runs."""
        for timer in list(self._timers):
            timer.join()
        self.ensure_up()

    def stop(self) -> None:
        """The same after an interruption, when no daemon is wanted any more."""
        self._over = True
        for timer in list(self._timers):
            timer.join()

    def later(self, seconds: float, what: str, undo: Callable[[], object]) -> None:
        """`undo` after a while, on a thread of its own; `what` cannot be broken again until then."""
        self.busy.add(what)

        def end() -> None:
            try:
                undo()
            except Exception as error:  # noqa: BLE001 - on a thread of its own: told with the violations
                self.complaints.append(("errors", f"{what} was not made whole again: {error!r}"))
            finally:
                self.busy.discard(what)

        self._timers = [timer for timer in self._timers if timer.is_alive()]
        self._timers.append(threading.Timer(seconds, end))
        self._timers[-1].start()

    def ensure_up(self) -> None:
        if not self._over and self.box.daemon() is None and not self.box.up_for_sure():
            self.complaints.append(("P5", f"the daemon could not be started again: {self.box.refusals[-1]}"))

    # -- the daemon ---------------------------------------------------------------------------------------------

    def _kill_daemon(self, signum: signal.Signals) -> bool:
        daemon = self.box.daemon()
        # One that is suspended would not hear a SIGTERM.
        if daemon is None or RESTART in self.busy or (signum is signal.SIGTERM and SUSPENDED in self.busy):
            return False
        pause = self.random.choice((0.0, 0.0, 0.3, 1.5))
        if not processes.kill(daemon, signum):
            return False

        def restart() -> None:
            if not gone(daemon):
                self.complaints.append(("P5", f"the daemon did not end within a minute of {signum.name}"))
                processes.kill(daemon)
            time.sleep(pause)
            self.ensure_up()

        self.later(0.0, RESTART, restart)
        return True

    def _kill_while_starting(self) -> bool:
        daemon = self.box.daemon()
        delay = self.random.uniform(0.05, 2.5)
        if daemon is None or RESTART in self.busy or not processes.kill(daemon):
            return False

        def restart() -> None:
            gone(daemon)
            starting = subprocess.Popen([GPUQ, "up", "-d"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            detached = [process for process in self.box.all() if "--detach" in processes.command(process)]
            killed = [process for process in detached if process.pid != starting.pid and processes.kill(process)]
            starting.wait()
            # One that is still going would be taken for a daemon that runs.
            for process in killed:
                gone(process)
            self.ensure_up()

        self.later(0.0, RESTART, restart)
        return True

    def _kill_everything(self) -> bool:
        daemon, server = self.box.daemon(), self.box.redis_server()
        if daemon is None or RESTART in self.busy:
            return False
        fork_server = self.box.fork_server()
        for process in (daemon, server, fork_server):
            if process is not None:
                processes.kill(process)
        for supervisor in self.box.supervisors():
            self.end_supervisor(supervisor)
        self.later(0.0, RESTART, lambda: (gone(daemon), self.ensure_up()))
        return True

    def _second_daemon(self) -> bool:
        if self.box.daemon() is None or {RESTART, SUSPENDED} & self.busy:
            return False
        done = subprocess.run([GPUQ, "up"], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 4:
            self.complaints.append(("P2", f"a second `gpuq up` ended with {done.returncode}: {done.stderr}"))
        return True

    def _suspend_daemon(self) -> bool:
        daemon = self.box.daemon()
        if daemon is None or {RESTART, SUSPENDED} & self.busy or not processes.kill(daemon, signal.SIGSTOP):
            return False
        self.later(self._too_long(), SUSPENDED, lambda: processes.kill(daemon, signal.SIGCONT))
        return True

    # -- jobs and those who look after them ---------------------------------------------------------------------

    def _kill_supervisor(self) -> bool:
        busy = [process for process in self.box.supervisors() if self.box.runs_of(process)]
        idle = self.random.random() < 0.1
        candidates = self.box.supervisors() if idle else busy
        return bool(candidates) and self.end_supervisor(self.random.choice(candidates))

    def end_supervisor(self, supervisor: Process) -> bool:
        """Stopped first, so that what it has in hand is what is noted."""
        with processes.held(supervisor) as fd:
            if fd is None or not processes.freeze(supervisor, fd):
                return False
            for run in self.box.runs_of(supervisor):
                self.kills.append(Kill("supervisor", run, time.time()))
            return processes.send(fd, signal.SIGKILL)

    def _kill_job(self) -> bool:
        jobs = self.box.jobs()
        if not jobs:
            return False
        process, run = self.random.choice(jobs)
        self.kills.append(Kill("job", run, time.time()))
        return processes.kill(process)

    def _kill_fork_server(self) -> bool:
        server = self.box.fork_server()
        return server is not None and processes.kill(server)

    # -- Redis --------------------------------------------------------------------------------------------------

    def _kill_redis(self) -> bool:
        server = self.box.redis_server()
        return server is not None and processes.kill(server)

    def _suspend_redis(self) -> bool:
        server = self.box.redis_server()
        if server is None or REDIS in self.busy or not processes.kill(server, signal.SIGSTOP):
            return False
        self.later(self._too_long(), REDIS, lambda: processes.kill(server, signal.SIGCONT))
        return True

    def _too_long(self) -> float:
        return LEASE_TTL_S * self.random.uniform(1.2, 2.0)

    def _tell_redis(self, what: Callable[[redis.Redis], object]) -> bool:
        if REDIS in self.busy:
            return False
        with contextlib.closing(self.box.redis()) as link:
            return bool(what(link))

    def _foreign_key(self) -> bool:
        """What was there is lost with it, and nothing can be started until it is gone."""
        key = f"gpuq:{self.random.choice(('queues', 'epoch', 'queue:0', 'lease:chaos:0', 'leases:chaos'))}"
        kinds = {"string": lambda link: link.sadd(key, "x"), "other": lambda link: link.set(key, "x")}

        def plant(link: redis.Redis) -> bool:
            other = kinds["string"] if link.type(key) == "string" else kinds["other"]
            link.delete(key)
            other(link)
            return True

        def remove() -> None:
            with contextlib.suppress(redis.RedisError), contextlib.closing(self.box.redis()) as link:
                link.delete(key)

        done = self._tell_redis(plant)
        if done:
            self.later(self.random.uniform(0.3, 2.5), REDIS, remove)
        return done

    def _cut_redis(self) -> bool:
        def cut(link: redis.Redis) -> bool:
            link.script_flush()
            link.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            return True

        return self._tell_redis(cut)

    def _and_back(self, forth: tuple[str, ...], back: tuple[str, ...]) -> bool:
        done = self._tell_redis(lambda link: link.execute_command(*forth))

        def undo() -> None:
            # A Redis that was replaced meanwhile was started with its usual options.
            with contextlib.suppress(redis.RedisError), contextlib.closing(self.box.redis()) as link:
                link.execute_command(*back)

        if done:
            self.later(self.random.uniform(0.3, 2.5), REDIS, undo)
        return done

    def _redis_full(self) -> bool:
        return self._and_back(("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"))

    def _redis_read_only(self) -> bool:
        # A replica of nobody refuses every write.
        return self._and_back(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"))

    def _remove_hint(self) -> bool:
        def remove(link: redis.Redis) -> bool:
            queues = sorted(link.scan_iter("gpuq:queue:*"))
            members = [(queue, member) for queue in queues for member in link.zrange(queue, 0, -1)]
            return bool(members) and bool(link.zrem(*self.random.choice(members)))

        return self._tell_redis(remove)

    def _remove_lease(self) -> bool:
        def remove(link: redis.Redis) -> bool:
            leases = sorted(link.scan_iter("gpuq:lease:*"))
            return bool(leases) and bool(link.delete(self.random.choice(leases)))

        return self._tell_redis(remove)

    # -- SQL ----------------------------------------------------------------------------------------------------

    def _lock_sqlite(self) -> bool:
        # During a restart the file may be another one, or away with the home.
        if {SQL, RESTART} & self.busy:
            return False
        path = self.box.home / "gpuq.db"
        base = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            base.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            base.close()
            return False
        self.later(self.random.uniform(0.2, 1.5), SQL, base.close)
        return True

    def _cut_postgres(self) -> bool:
        if SQL in self.busy:
            return False
        self._database.execute(  # type: ignore[attr-defined]
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gpuq'"
        )
        return True

    def _restart_postgres(self) -> bool:
        if SQL in self.busy:
            return False
        self._database.stop()  # type: ignore[attr-defined]
        self.later(self.random.uniform(0.1, 2.0), SQL, self._database.start)  # type: ignore[attr-defined]
        return True
