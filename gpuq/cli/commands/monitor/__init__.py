"""`gpuq monitor`: the queue, the GPUs and output on the whole terminal, as they change.

In: what the daemon answers, and keys. Out: a screen, and the requests that the command line makes for the same verbs.
`command` begins it, `app` is the screen, `layout` where things stand, `job_table` and `detail` its two large parts:
`feed` asks, `verbs` says what a key does to jobs, `background` keeps requests off the screen's thread, `tail` keeps the
end of a job's output, `widgets` and `rows` draw. May import: `gpuq.client`, `gpuq.domain`, and of the command line how
it connects and what its listings say. Nothing of it is imported by another command, because Textual takes long.
"""
