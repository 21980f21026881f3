"""What became of an attempt is written down.

In: results. Out: the job's next state. After it, in one guarded transaction: attempt, job, event, a dead letter or the
next try, and the dependents that this end sets free; only then its leases go back, by token. Writing the same end twice
changes nothing. May import: `attempt`, `hot`, and the engine's root modules.
"""
