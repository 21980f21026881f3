"""What the words of gpuq mean: plain values and the rules that they obey.

In: values. Out: values, or an error of `gpuq.errors`. Nothing is read, written or waited for, and time and chance are
arguments, so the same call has the same answer always. May import: `gpuq.errors`, pydantic, the standard library; the
modules that supervisors use keep to the standard library.
"""
