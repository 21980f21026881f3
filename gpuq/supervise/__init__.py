"""The process that owns a running job, and the daemon's side of it.

In: the records of an attempt, with its lock held. Out: `exit.json` among them, the true end. After it no process of
the attempt is left. A supervisor outlives the daemon and needs neither SQL nor Redis. `bundle`, `kernel` and
`processes` are at the bottom; `shim` is the supervisor, `forkserver` and `supervisor_pool` make them, `launch` is the
daemon's side. May import: the standard library, `gpuq.domain`, and, on the daemon's side only, `gpuq.ports`.
"""
