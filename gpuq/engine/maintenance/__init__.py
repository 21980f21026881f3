"""What time does: jobs whose time has come, attempts that nobody watches, a hot store that has to be rebuilt, old rows.

In: the clock, and word that something was missed. Out: nothing; each task leaves its line in the diary of maintenance.
After it SQL, the hot queue and the processes agree again. Every task may run at any time, twice, or after another one
that was cut off. May import: every room of the road except `intake`; nobody but the processes' start imports it.
"""
