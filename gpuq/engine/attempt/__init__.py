"""One attempt, from its launch to the report of its end.

In: a claimed attempt, or the record of one that an earlier agent left. Out: `TrackedAttempt`s, what their supervisors
tell, and results. After it every attempt that lives on this node is known to the agent, whoever launched it, and a wish
that it stop is durable. May import: the engine's root modules.
"""
