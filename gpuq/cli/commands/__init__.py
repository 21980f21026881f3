"""What each command does; one module for one command or a few that are alike.

In: `Args`. Out: what is printed, and the exit code. Found by `gpuq.cli.dispatch` from the table, which names module and
function. May import: `gpuq.cli.parse`, the modules of `gpuq.cli` beside it, `gpuq.client`; each other, one way.
"""
