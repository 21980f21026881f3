"""What all requests have in common.

In: a request. Out: who asks, a bounded body, and every failure in one shape; streams that end when their listener goes.
May import: `gpuq.engine.context` and answers about jobs, `gpuq.ports`, `gpuq.domain`, `gpuq.errors`.
"""
