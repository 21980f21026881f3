"""Messages as the frameworks print them, shortened where they run on."""
# ruff: noqa: E501

from __future__ import annotations

import pytest

from gpuq.domain.oom import gpu_oom

REPORTS = {
    "pytorch_2": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 496.00 MiB. GPU 0 has a total capacity of "
    "14.75 GiB of which 235.06 MiB is free. Process 20398 has 14.52 GiB memory in use. If reserved but unallocated "
    "memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
    "pytorch_1": "RuntimeError: CUDA out of memory. Tried to allocate 9.80 GiB (GPU 0; 14.76 GiB total capacity; 9.94 GiB "
    "already allocated; 3.89 GiB free; 160.79 MiB cached)",
    "pytorch_async": "RuntimeError: CUDA error: out of memory",
    "pytorch_rocm": "torch.cuda.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.98 GiB total)",
    "pytorch_rank": "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
    "tensorflow": "ResourceExhaustedError (see above for traceback): OOM when allocating tensor with "
    "shape[500,17,17,4032] and type float on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
    "tensorflow_driver": "2022-05-19 10:00:00.1: I tensorflow/stream_executor/cuda/cuda_driver.cc:733] failed to allocate "
    "17.79G (19104890880 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "jax": "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7406166528 "
    "bytes.",
    "jax_allocating": "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 20029400304 bytes.",
    "xla_old": "E external/org_tensorflow/tensorflow/compiler/xla/python/local_client.cc:672] Execution of replica 0 "
    "failed: Resource exhausted: Out of memory while trying to allocate 5520758552 bytes.",
    "cupy": "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 25,600,000 bytes (allocated so far: "
    "3,635,267,072 bytes).",
    "cupy_old": "cupy.cuda.memory.OutOfMemoryError: out of memory to allocate 1073741824 bytes (total 12373894656 bytes)",
    "vllm_blocks": "ERROR 04-30 10:20:36 [core.py:396] ValueError: No available memory for the cache blocks. Try "
    "increasing `gpu_memory_utilization` when initializing the engine.",
    "vllm_start": "ValueError: Free memory on device (3.11/79.11 GiB) on startup is less than desired GPU memory "
    "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    "runtime": "CUDA error at main.cu:31: cudaErrorMemoryAllocation: out of memory",
    "runtime_text": "CUDA error 2 at main.cu:12: out of memory",
    "llama_cpp": "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 15360.00 MiB on device 0: cudaMalloc failed: out "
    "of memory",
    "thrust": "terminate called after throwing an instance of 'thrust::system::detail::bad_alloc'\n  what():  "
    "std::bad_alloc: cudaErrorMemoryAllocation: out of memory",
    "rmm": "MemoryError: std::bad_alloc: out_of_memory: CUDA error at: /opt/include/rmm/mr/device/cuda_memory_resource.hpp",
    "numba": "numba.cuda.cudadrv.driver.CudaAPIError: [2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY",
    "nccl": "host:311:340 [0] include/alloc.h:103 NCCL WARN Cuda failure 2 'out of memory'",
    "cublas": "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cudnn": "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_framework_that_reports_it_last_is_believed(name: str) -> None:
    report = REPORTS[name]
    tail = f"epoch 3 loss 0.12\nTraceback (most recent call last):\n{report}\n"
    line = gpu_oom(tail, 1)
    assert line is not None
    assert line == report.splitlines()[-1].strip()[:300]


@pytest.mark.parametrize("name", REPORTS)
def test_a_program_that_succeeded_had_memory_enough(name: str) -> None:
    assert gpu_oom(REPORTS[name], 0) is None


def test_a_program_ended_by_a_signal_counts_too() -> None:
    assert gpu_oom(REPORTS["thrust"], None) is not None
    assert gpu_oom(REPORTS["thrust"], 134) is not None


@pytest.mark.parametrize(
    "line",
    [
        "CUDA out of memory",
        "warning: CUDA out of memory. Tried to allocate 2.00 GiB; retrying with batch size 16",
        "CUDA out of memory. Tried to allocate 2.00 GiB. Skipping batch 12",
        "INFO 11-18 18:07:28 last run: RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB",
        "[INFO] see the notes on CUDA_ERROR_OUT_OF_MEMORY",
        "if you get CUBLAS_STATUS_ALLOC_FAILED, lower the batch size",
        "    except torch.cuda.OutOfMemoryError:",
        "ResourceExhaustedError: OOM when allocating tensor with shape[8,8] on /device:CPU:0 by allocator cpu",
        "MemoryError: Unable to allocate 74.5 GiB for an array with shape (100000, 100000)",
        "slurmstepd: error: Detected 1 oom_kill event",
        "",
    ],
)
def test_a_line_that_only_mentions_it_or_means_other_memory_is_not_one(line: str) -> None:
    assert gpu_oom(f"epoch 1\n{line}\nexit\n", 1) is None


def test_a_later_error_of_another_cause_is_the_cause() -> None:
    tail = f"{REPORTS['pytorch_2']}\nepoch 2\nTraceback (most recent call last):\nKeyError: 'labels'\n"
    assert gpu_oom(tail, 1) is None


@pytest.mark.parametrize(
    "after",
    [
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n=====\ntrain.py FAILED",
        "[rank1]: torch.distributed.DistBackendError: NCCL communicator was aborted on rank 1.",
        "subprocess.CalledProcessError: Command '['python', 'x.py']' returned non-zero exit status 1.",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n"
        '  File "train.py", line 3, in <module>\nRuntimeError: training failed',
        "The above exception was the direct cause of the following exception:\n\nTrainingError: step 4",
        "W0101 10:00:00 torch/distributed/elastic/multiprocessing/api.py:897] Sending process 312 closing signal SIGTERM",
    ],
)
def test_errors_of_those_who_waited_for_it_do_not_hide_it(after: str) -> None:
    assert gpu_oom(f"{REPORTS['pytorch_2']}\n{after}\n", 1) is not None


def test_a_very_long_line_is_cut() -> None:
    line = gpu_oom(REPORTS["pytorch_async"] + " x" * 1000, 1)
    assert line is not None
    assert len(line) == 300
