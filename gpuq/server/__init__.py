"""The daemon: processes, sockets, and the HTTP in front of the engine.

In: requests. Out: JSON and streams. Nothing is decided here: a route reads a request, calls one thing of the engine,
and writes the answer. From the outside to the inside: `process`, `listen` and `in_process`, `app`, `routes`, `http`.
May import: `gpuq.engine`, `gpuq.wiring` (processes only), `gpuq.observe`, and what these stand on; no store.
"""
