"""Who starts where, who yields, why the others wait, and when they will start.

In: a `Snapshot` and the time. Out: a plan, its reasons, a forecast. Nothing happens: the same snapshot gives the same
plan, and it is `gpuq.engine.claim` that makes it true. `snapshot` and `expect` are at the bottom, then `order`,
`limits` and `placement`, then `fit`, `overtaking` and `decide`; on the decision stand `explain`, `preempt` and
`simulate`, and on these `plan` and `forecast`. May import: `gpuq.domain`, `gpuq.ports.history` for what earlier runs
took.
"""
