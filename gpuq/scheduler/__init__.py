"""Who starts where, who yields, why the others wait, and when they will start.

In: a `Snapshot` and the time. Out: a plan, its reasons, a forecast. Nothing happens: the same snapshot gives the same
plan, and it is `gpuq.engine.claim` that makes it true. `snapshot` and `placement` are at the bottom, then `order`,
`limits` and `fit`, then `decide`; `plan`, `explain` and `forecast` stand on that. May import: `gpuq.domain`,
`gpuq.ports.history` for what earlier runs took.
"""
