"""The GPUs of this machine: NVIDIA's, or simulated ones; both are a `gpuq.ports.gpus.GpuSource`.

In: the driver's answers. Out: what there is and what goes on there, with what cannot be known told as unknown. Looking
changes nothing. May import: `gpuq.domain`, `gpuq.errors`, NVIDIA's binding.
"""
