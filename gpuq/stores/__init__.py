"""What keeps gpuq's state: `sql` is the truth, `redis` is fast and can be rebuilt from it.

In and out: as `gpuq.ports` says. The stores do not know each other; `gpuq.wiring` puts them together.
"""
