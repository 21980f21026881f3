"""The client of the daemon. Its public names are those of `gpuq`: `from gpuq import Client, Job`.

Nothing is imported here, because every command line imports this package for its JSON layer.
"""
