"""A redis-server of gpuq's own, for a home that names none.

In: the home. Out: a socket on which it answers. After it one server at most runs for that home, and none that an
earlier daemon left. May import: `gpuq.errors`, the standard library; how Redis is talked to is not known here.
"""
