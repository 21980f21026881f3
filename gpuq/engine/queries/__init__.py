"""What people are answered: where jobs stand and why, the GPUs, the groups, the health of it all.

In: who or what is asked about. Out: plain values, ready for JSON. Never writes: no transaction that writes is begun
here. May import: `snapshot`, `attempt.tracked`, `hot`, and the engine's root modules; never a room that changes
something.
"""
