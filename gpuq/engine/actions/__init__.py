"""What people do to jobs, to groups and to the queue.

In: who asks, for what, and which jobs. Out: the jobs as they are then, or Forbidden, NotFound, WrongState. Rights are
checked here and not in the server. After it the change and its event are committed, and those whom it concerns are
woken. May import: `intake`, `outcome.dependents`, `attempt.stop_request`, `hot`, and the engine's root modules.
"""
