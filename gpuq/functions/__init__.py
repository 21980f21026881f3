"""Python functions as jobs: an executor of the standard library's kind, whose calls are jobs of the queue.

In: a function and its arguments, pickled in the caller's thread into a file of the caller's own user. Out: a future,
settled from the job's result. `payload` (the files) and `call` (what the job runs) are at the bottom, then `future`,
`watcher` (the one thread that waits), `executor`. May import: the client, `gpuq.python_values`; nothing of the daemon.
"""
