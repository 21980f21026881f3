"""The state of the queue and of this machine at one moment, as the scheduler is shown it.

In: the heads of the hot queue, the rows behind them, the driver's readings, the live attempts, and what people have
set. Out: a `gpuq.scheduler.snapshot.Snapshot`. Nothing is changed by looking; what cannot be known counts as in use.
May import: `attempt.tracked` for what lives here, `hot`, and the engine's root modules.
"""
