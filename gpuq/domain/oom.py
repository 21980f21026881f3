"""Whether a program ended because a GPU had no memory left, judged by the end of its output.

Only the forms in which frameworks report the error count, not every line that names it: a program that
prints "CUDA out of memory, retrying with batch 16" and later dies of something else did not die of it.
"""

from __future__ import annotations

import re

# What is told of it to everybody. The line that reports it is the program's own, and may hold anything.
GPU_OOM_ERROR = "out of GPU memory"

_LONGEST_LINE = 300

# What is matched, and who writes it.
_FORMS = tuple(
    re.compile(form)
    for form in (
        # PyTorch, before and after 2.5, CUDA and ROCm; torch.OutOfMemoryError is also what vLLM and others pass on.
        r"\b(?:CUDA|HIP) out of memory\. Tried to allocate",
        r"\btorch\.(?:cuda\.)?OutOfMemoryError: \S",
        r"\bRuntimeError: (?:CUDA|HIP) error: out of memory",
        # TensorFlow and Keras.
        r"\bOOM when allocating tensor with shape.*\bGPU[:_]\d",
        # JAX and XLA.
        r"\b(?:RESOURCE_EXHAUSTED|Resource exhausted): Out of memory (?:while trying to allocate|allocating) \d",
        # CuPy, before and after 7.
        r"\bOut of memory allocating [\d,]+ bytes \(allocated so far",
        r"\bout of memory to allocate \d+ bytes \(total",
        # vLLM, which refuses to start when what is left is too small.
        r"\bValueError: No available memory for the cache blocks",
        r"\bValueError: Free memory on device .* is less than desired GPU memory utilization",
        # PaddlePaddle.
        r"\bOut of memory error on GPU \d",
        # The CUDA driver, the CUDA runtime, and programs that print their names for it (llama.cpp, Thrust, RMM, NCCL).
        r"\bCUDA_ERROR_OUT_OF_MEMORY\b",
        r"\bcudaErrorMemoryAllocation\b",
        r"\bcudaMalloc(?:Async|Managed)?\b.*\bfailed: out of memory",
        r"\bCUDA (?:error|failure)\b.{0,120}: out of memory",
        r"\bout_of_memory: CUDA error",
        r"\bCuda failure (?:\d+ )?'out of memory'",
        # cuBLAS, cuDNN, cuSOLVER and cuSPARSE.
        r"\bCU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED\b",
    )
)
# A line that says it was got over, or that only quotes the words.
_IN_PASSING = re.compile(
    r"\b(?:retrying|skipping|skipped|reducing|recover(?:ed|ing)|fall(?:s|ing)? back|caught|ignor(?:ed|ing)"
    r"|in case of|if you)\b|(?-i:(?:^|[\s\[])(?:DEBUG|INFO)\b)",
    re.IGNORECASE,
)
# The last line of a Python traceback, with the prefix that torch puts before each rank's.
_EXCEPTION = re.compile(r"^(?:\[rank\d+\]:\s?)?([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Failure))(?::|$)")
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
# Raised by whatever waited for the process or rank that failed first.
_AFTERMATH = frozenset(
    {
        "ChildFailedError", "ProcessExitedException", "ProcessRaisedException", "DistBackendError", "DistStoreError",
        "DistNetworkError", "CalledProcessError", "EngineDeadError", "RayTaskError", "ActorDiedError",
        "BrokenProcessPool", "BrokenPipeError", "ConnectionResetError", "ConnectionRefusedError", "ConnectionError",
        "EOFError", "TimeoutError", "SystemExit", "KeyboardInterrupt",
    }
)  # fmt: skip


def gpu_oom(log_tail: str, exit_code: int | None) -> str | None:
    """The line that reports it, or None. `exit_code` is None for a program ended by a signal.

    `log_tail`: the last lines of the output. When a traceback of another cause comes after the last report, the
    program had got over it.
    """
    if exit_code == 0:
        return None
    lines = log_tail.splitlines()
    for place in range(len(lines) - 1, -1, -1):
        line = lines[place]
        if any(form.search(line) for form in _FORMS) and not _IN_PASSING.search(line):
            return None if _died_of_something_else(lines[place + 1 :]) else line.strip()[:_LONGEST_LINE]
    return None


def _died_of_something_else(lines: list[str]) -> bool:
    chained = False
    other = False
    for line in lines:
        if line.lstrip().startswith(_CHAINED):
            chained = True
        elif match := _EXCEPTION.match(line):
            # vLLM's parent process says only that its engine did not start.
            aftermath = match[1].rpartition(".")[2] in _AFTERMATH or "Engine core initialization failed" in line
            other = not (chained or aftermath)
            chained = False
    return other
