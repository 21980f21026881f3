"""Looking for signs of life of an attempt, wherever its folders went (see gpuq.domain.proof_of_death)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable

from gpuq.domain.attempt_mark import MARK, mark_of
from gpuq.domain.job import Launched
from gpuq.domain.proof_of_death import Evidence, Sign
from gpuq.linux import Process, pid_taken
from gpuq.supervise import bundle, cgroup, kernel, processes, sweep

_DELETED = " (deleted)"


def gather(
    run_dir: str,
    token: str,
    launched: Launched | None,
    owner: int,
    groups: str | None,
    family: Collection[tuple[int, int]] = (),
) -> Evidence:
    """Looks at everything once. `launched`: the processes, as far as anybody knows them; `owner`: the job's user;
    `groups`: the folder of this home's control groups; `family`: pid and start time of what was seen to descend from
    the supervisor. Nothing is changed. Raises OSError when /proc cannot be read."""
    records = bundle.records_of(run_dir)
    table = processes.everything()
    entry = f"{MARK}={mark_of(token)}".encode()
    marked = sweep.strays(entry, None, None, owner)
    supervisor, supervisors = _supervisor(records, token, launched, table)
    main = _main(launched, table)
    session, members = _session(launched, main, {process.pid for process in marked}, table, owner)
    group, grouped = _group(launched, table, groups)
    relatives = [pid for pid, start in family if pid in table and table[pid].start == start and table[pid].living]
    pids = {*relatives, *supervisors, *members, *grouped, *(process.pid for process in marked)}
    if launched is not None and main in (Sign.LIVES, Sign.UNSEEN):
        pids.add(launched.pid)
    return Evidence(
        lock=_lock(records),
        supervisor=supervisor,
        main=main,
        session=session,
        group=group,
        marked=Sign.LIVES if marked else Sign.GONE,
        family=Sign.LIVES if relatives else Sign.GONE if family else Sign.UNTOLD,
        pids=tuple(sorted(pids)),
    )


def _lock(records: str) -> Sign:
    try:
        fd = os.open(os.path.join(records, bundle.LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # A link, or anything else that was put in its place, holds nobody's lock.
        return Sign.GONE if error.errno in bundle.NO_FILE else Sign.UNSEEN
    try:
        # Shared, so that two who ask at the same moment do not take each other for a supervisor.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Sign.LIVES
    except OSError:
        return Sign.UNSEEN
    finally:
        os.close(fd)
    return Sign.GONE


def _supervisor(
    records: str, token: str, launched: Launched | None, table: dict[int, Process]
) -> tuple[Sign, list[int]]:
    """By the job's process, its child, or the lock that it has open, deleted or moved as that may be: one that reported
    is known by its number, and may be at work on another attempt by now; one that did not is looked for among all
    supervisors."""
    known = None if launched is None else table.get(launched.supervisor_pid)
    if known is not None and launched is not None and known.start == launched.supervisor_start:
        if known.living:
            # Its records may be anywhere: who has the job's process as a child is at work on it.
            main = table.get(launched.pid)
            if main is not None and main.start == launched.pid_start and main.parent == known.pid:
                return Sign.LIVES, [known.pid]
            held = _holds(known.pid, _tail(records), whole=False)
            if held is not False:
                return (Sign.LIVES if held else Sign.UNSEEN), [known.pid]
        elif processes.name_of(known.parent) == kernel.NAME and not _has_end(records, token):
            # Its fork server has still to execute its will.
            return Sign.LIVES, [known.pid]
    path = os.path.join(os.path.realpath(records), bundle.LOCK)
    for process in table.values():
        if process.living and processes.name_of(process.pid) == kernel.NAME and _holds(process.pid, path, whole=True):
            return Sign.LIVES, [process.pid]
    return (Sign.UNTOLD if launched is None else Sign.GONE), []


def _tail(records: str) -> str:
    """What the path of the lock ends with, wherever the home is now."""
    return "/" + "/".join([*records.split("/")[-2:], bundle.LOCK])


def _holds(pid: int, path: str, *, whole: bool) -> bool | None:
    """Whether the process has that file open; `whole` false: one whose path ends so. None when it cannot be seen."""
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    for number in numbers:
        try:
            target = os.readlink(f"{folder}/{number}").removesuffix(_DELETED)
        except OSError:
            continue
        if target == path or (not whole and target.endswith(path)):
            return True
    return False


def _has_end(records: str, token: str) -> bool:
    """Whether nothing more is written of its end."""
    try:
        record = bundle.read(records, bundle.EXIT)
    except OSError:
        return False
    if bundle.taken_over(records):
        return True
    return record is not None and record.get("token") in (token, None)


def _main(launched: Launched | None, table: dict[int, Process]) -> Sign:
    if launched is None:
        return Sign.UNTOLD
    process = table.get(launched.pid)
    if process is None:
        return Sign.UNSEEN if pid_taken(launched.pid) else Sign.GONE
    return Sign.LIVES if process.start == launched.pid_start and process.living else Sign.GONE


def _session(
    launched: Launched | None, main: Sign, marked: Iterable[int], table: dict[int, Process], owner: int
) -> tuple[Sign, list[int]]:
    """The number of a session is not given again as long as anything is in it. So what is in it is the job's if its
    leader is, or one with the mark is in it; without a leader it may be that of a later session."""
    if launched is None:
        return Sign.UNTOLD, []
    leader = table.get(launched.pid)
    if leader is not None and leader.start != launched.pid_start:
        return Sign.GONE, []
    members = [process.pid for process in table.values() if process.session == launched.pid and process.living]
    members = [pid for pid in members if processes.user_of(table[pid]) == owner]
    if not members:
        return Sign.GONE, []
    return (Sign.LIVES if main is Sign.LIVES or set(marked) & set(members) else Sign.UNSEEN), members


def _group(launched: Launched | None, table: dict[int, Process], folder: str | None) -> tuple[Sign, list[int]]:
    if launched is None or folder is None:
        return Sign.UNTOLD, []
    supervisor = table.get(launched.supervisor_pid)
    if supervisor is not None and supervisor.start == launched.supervisor_start and supervisor.living:
        # It may be another attempt's by now.
        return Sign.UNTOLD, []
    try:
        members = cgroup.members_left_by(folder, launched.supervisor_pid, launched.supervisor_start)
    except OSError:
        return Sign.UNSEEN, []
    return (Sign.LIVES if members else Sign.GONE), members
