"""The client of the daemon. Its public names are those of `gpuq`: `from gpuq import Client, Job`.

Nothing is imported here, because every command line imports this package for its JSON layer.

In: what a program wants. Out: the daemon's answers as values, or the error that it names; a request that may be
repeated carries a key, so that it happens once. `transport`, `address` and `tcp` are at the bottom, then `session`,
then `client` (JSON, for the command line), then `typed` (values, for programs). May import: `gpuq.errors`,
`gpuq.settings` where a home has to be found, the standard library.
"""
