"""What a job may leave besides its output: names of the files in its own folder, and what is stored of them."""

from __future__ import annotations

# In the own folder of an attempt: GPUQ_RESULT_FILE, its media type where the job says one, GPUQ_SHORT_RESULT_FILE.
RESULT = "result"
RESULT_TYPE = "result.type"
SHORT_RESULT = "short_result"
# Columns of a job that has ended, of its last attempt.
RESULT_COLUMNS = ("result_bytes", "result_type", "short_result")
# Of the media type of a value that only Python reads, see `gpuq.functions`.
PYTHON_TYPE = "application/vnd.gpuq.python"
