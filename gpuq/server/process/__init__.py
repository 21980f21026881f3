"""The processes of gpuq, from their start to their end.

In: settings, and which roles to play. Out: an exit code. After it every service has stopped, and jobs go on, unless it
was asked to stop them. May import: all of the server, `gpuq.wiring`, `gpuq.engine`.
"""
