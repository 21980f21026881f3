"""The systemd unit that `gpuq install-service` writes, as text."""

from __future__ import annotations

from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of a unit for the whole machine. The driver's own service makes the device nodes.
_AFTER = "After=network.target remote-fs.target nvidia-persistenced.service\n"
# Memory that RDMA and CUDA pin is counted against a limit of 8 MiB otherwise.
_PINNED = "LimitMEMLOCK=infinity\n"

_TEXT = """\
# Made by `gpuq install-service`. Changes of your own belong into a drop-in, which survives the next one:
# `{edit}`.
[Unit]
Description=gpuq, a GPU job queue
{after}# Without its disk the home would look empty, and be begun anew.
RequiresMountsFor={home}
# Tried again for ever: a database that is back after an hour finds the queue back, too.
StartLimitIntervalSec=0

[Service]
# Started means: jobs can be submitted. Bringing a large database up to date may take long, and is not cut short.
Type=notify
TimeoutStartSec=infinity
{environment}ExecStart={command}
Restart=always
RestartSec=2

# Jobs are children of this service and outlive it. By default a stop or restart would end every one of them.
KillMode=process
# The control groups below the service are gpuq's: by them it stops jobs for certain.
Delegate=yes
# A job that runs out of memory is no reason to stop the queue and all the others.
OOMPolicy=continue
# Jobs inherit what is set here. All of them together would share systemd's limit on processes and threads.
TasksMax=infinity
{pinned}
# Nothing that shuts the service in: it would shut in every job. Hence no PrivateTmp, ProtectHome or ProtectSystem
# (jobs read and write their users' files, and /tmp is where they expect it), no PrivateDevices (the GPUs), no
# NoNewPrivileges, CapabilityBoundingSet or SystemCallFilter (a job's sudo and mpirun would fail, and root's daemon
# becomes the submitter, and hides from a job the GPUs that are not its own), and no MemoryMax or CPUQuota (all jobs
# would share it).

[Install]
WantedBy={target}
"""


def unit(command: Sequence[str], home: str, *, user: bool, variables: Mapping[str, str]) -> str:
    """The unit that runs `command` for the installation in `home`; `user`: for the systemd of a user, not of the
    machine. `variables` are set for it. Raises UsageError for a path that cannot stand in a unit."""
    return _TEXT.format(
        edit="systemctl --user edit gpuq" if user else "systemctl edit gpuq",
        after="" if user else _AFTER,
        home=quoted(home),
        environment="".join(f"Environment={quoted(f'{name}={value}')}\n" for name, value in variables.items()),
        command=" ".join(map(quoted, command)),
        pinned="" if user else _PINNED,
        target="default.target" if user else "multi-user.target",
    )


def quoted(word: str) -> str:
    """The word as systemd reads it in any of these places. Raises UsageError for what it would read otherwise:
    quotes, backslashes, `$`, or what cannot be printed."""
    if not word.isprintable() or any(sign in word for sign in "\"'\\$"):
        raise UsageError(
            f"{word!r} cannot stand in a unit of systemd: it has a quote, a backslash, a $ or a character that is not"
            " printable",
            hint="give the folder another name",
        )
    word = word.replace("%", "%%")
    return f'"{word}"' if " " in word else word
