"""What the engine asks of the world outside, as Protocols; one module for each of those who answer.

In and out: values of the domain and the plain records that stand here. What each promise means, and which errors break
it, is written with its method; `tests/conformance` holds every store to it. May import: `gpuq.domain`, `gpuq.errors`.
"""
