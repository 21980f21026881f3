"""The routes, a module for each part of the API.

In: parameters and bodies, read strictly. Out: JSON documents. May import: `http`, the engine's `intake`, `actions` and
`queries`, and each other's ways of showing a job.
"""
