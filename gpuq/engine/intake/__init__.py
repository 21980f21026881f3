"""A submission becomes jobs.

In: `JobSpec`s and the caller. Out: the jobs, or an error that names the field; nothing in between, all or none. After
it the rows and their events are committed, whatever dies next, and the hot queue has been told if it could be. Knows
nothing of processes. May import: `hot`, and the engine's root modules.
"""
